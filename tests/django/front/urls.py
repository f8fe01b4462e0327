"""Where everything is."""

from django.urls import path, re_path

from front import views, visits

urlpatterns = [
    path("", views.page),
    path("healthz", visits.healthy),
    path("visits", visits.visits),
    path("upload", views.upload),
    path("download", views.download),
    path("files/<path:name>", views.protected),
    path("events/", views.events),
    re_path(r"^echo(?:/.*)?$", views.echo),
    path("slow", views.slow),
    path("status/<int:status>", views.status),
]
