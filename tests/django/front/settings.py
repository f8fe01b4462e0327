"""A small site as the deployment checklist asks for it: `manage.py check --deploy` has nothing to say."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Made at run time by whoever starts the site; never in the repository.
SECRET_KEY = Path(os.environ["DJANGO_SECRET_KEY_FILE"]).read_text().strip()
DEBUG = False
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "app.localhost").split(",")

INSTALLED_APPS = ["channels", "front"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
ROOT_URLCONF = "front.urls"
WSGI_APPLICATION = "front.wsgi.application"
ASGI_APPLICATION = "front.asgi.application"
USE_TZ = True

# PostgreSQL and Redis where the environment names them, as deploy/compose.yaml does; `make demo` has neither.
DATABASES = {}
if host := os.environ.get("DATABASE_HOST"):
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": host,
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["DATABASE_USER"],
        "PASSWORD": Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip(),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
if url := os.environ.get("REDIS_URL"):
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Safe only behind an edge that drops every copy a client sends, and sets its own for HTTPS alone.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
CSRF_COOKIE_SECURE = True
SESSION_COOKIE_SECURE = True
SILENCED_SYSTEM_CHECKS = ["security.W004"]  # Strict-Transport-Security is the edge's to set

FILE_UPLOAD_MAX_MEMORY_SIZE = 1 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 << 20

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
