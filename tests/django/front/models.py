"""What the database has."""

from django.db import models


class Visit(models.Model):
    """One visit, of the page or of whoever says so."""

    by = models.CharField(max_length=40, db_index=True)
    at = models.DateTimeField(auto_now_add=True)
