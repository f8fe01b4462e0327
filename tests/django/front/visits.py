"""Visits, counted in PostgreSQL and kept at hand in Redis, where there are any; and whether this Django is well."""

import os
from pathlib import Path

from django.core.cache import cache
from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from front.models import Visit

COUNTED = "DATABASE_HOST" in os.environ
RELEASE = os.environ.get("RELEASE", "none")
FRESH = 1  # seconds for which a count is taken from the cache
LEAVING = Path("/tmp/leaving")  # tests/django/serve makes it before the server stops


def healthy(request):
    """200, and 503 from the moment at which this container is about to leave."""
    leaving = LEAVING.exists()
    return HttpResponse("leaving\n" if leaving else "well\n", status=503 if leaving else 200, content_type="text/plain")


@csrf_exempt
def visits(request):
    """GET: how many visits there were `by` whom. POST: one more, and which one it was."""
    if not COUNTED:
        return HttpResponse("no database is configured\n", status=404, content_type="text/plain")
    by = request.GET.get("by", "page")[:40]
    if request.method == "POST":
        return JsonResponse({"visit": Visit.objects.create(by=by).pk, "release": RELEASE})
    return JsonResponse({"visits": count(by), "release": RELEASE})


def seen():
    """One more visit of the page, for its table."""
    Visit.objects.create(by="page")
    return {"visits so far": count("page"), "release": RELEASE}


def count(by):
    """At most a second old."""
    return cache.get_or_set(f"visits-{by}", lambda: Visit.objects.filter(by=by).count(), FRESH)
