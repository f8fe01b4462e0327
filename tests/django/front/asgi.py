"""For uvicorn: the same site, and the WebSocket."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "front.settings")
site = get_asgi_application()

from front.consumers import Echo  # noqa: E402 (settings come first)

application = ProtocolTypeRouter(
    {
        "http": site,
        "websocket": AllowedHostsOriginValidator(URLRouter([path("ws/echo", Echo.as_asgi())])),
    }
)
