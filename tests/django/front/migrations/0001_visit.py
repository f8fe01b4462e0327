"""The table of visits."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Visit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("by", models.CharField(db_index=True, max_length=40)),
                ("at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]
