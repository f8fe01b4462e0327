"""Whether the Django of this container is well: asks it as the edge does. Exits 0 or 1."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=3)
host = os.environ.get("DJANGO_ALLOWED_HOSTS", "app.localhost").split(",")[0]
connection.request("GET", "/healthz", headers={"Host": host, "X-Forwarded-Proto": "https"})
sys.exit(connection.getresponse().status != 200)
