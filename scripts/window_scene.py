"""An edge as a busy place has it: sites, certificates of every age, upstreams up and down, a long firewall, and traffic."""

import http.client
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 60  # seconds that the edge may take to come up


class Scene:
    """The edge, what stands behind it and whoever asks it, in a folder of its own."""

    def __init__(self, program):
        self.folder = Path(tempfile.mkdtemp(prefix="vestibule-window-"))
        self.stop, self.threads, self.process = threading.Event(), [], None
        self.servers = [serve(Upstream) for _ in range(3)]
        try:
            self.start(program)
        except BaseException:
            self.__exit__()
            raise

    def start(self, program):
        for name, (days, names) in CERTIFICATES.items():
            certify(self.folder / name, days, names)
        config = self.folder / "vestibule.toml"
        config.write_text(configuration(self.folder, [server.server_port for server in self.servers]))
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen([program, "serve", "--config", config], stdout=log, stderr=log, cwd=self.folder)
        self.https = self.heard(r'"row":"127\.0\.0\.1:0".*?"address":"127\.0\.0\.1:(\d+)"|"address":"127\.0\.0\.1:(\d+)".*?"row":"127\.0\.0\.1:0"')
        self.closed = self.heard(r'"row":"127\.0\.0\.6:0".*?"address":"127\.0\.0\.6:(\d+)"|"address":"127\.0\.0\.6:(\d+)".*?"row":"127\.0\.0\.6:0"')
        admin = self.heard(r'"row":"\[admin\] listen".*?"address":"127\.0\.0\.1:(\d+)"|"address":"127\.0\.0\.1:(\d+)".*?"row":"\[admin\] listen"')
        self.heard(r'("message":"ready")')
        self.window = f"http://127.0.0.1:{admin}/"

    def heard(self, pattern):
        """What the log says of this, once it does."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, text := (self.folder / "log").read_text())):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"the edge did not come up: {text[-2000:]}")
            time.sleep(0.02)
        return next(group for group in found.groups() if group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE)
        for server in self.servers:
            server.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def live(self, seconds):
        """Has it asked, for so long; it goes on after that."""
        for number in range(4):
            thread = threading.Thread(target=self.ask, args=(random.Random(number),))
            thread.start()
            self.threads.append(thread)
        self.stop.wait(seconds)

    def ask(self, dice):
        begun = time.monotonic()
        while not self.stop.is_set():
            name, path = dice.choice(ASKED)
            try:
                self.request(name, path)
            except (OSError, http.client.HTTPException):
                pass  # some are there to be refused
            tide = 1 + 0.7 * ((time.monotonic() - begun) % 90 / 90)
            self.stop.wait(dice.expovariate(14) / tide)

    def request(self, name, path):
        if name is None:
            with socket.create_connection(("127.0.0.6", int(self.closed)), 10) as door:
                door.recv(1)
            return None
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", int(self.https)), 30) as raw:
            with context.wrap_socket(raw, server_hostname=name) as tls:
                tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                answer = http.client.HTTPResponse(tls)
                answer.begin()
                answer.read()
                return answer

    def refuse(self, path):
        """Asks for what nobody gets; returns the request's id."""
        return self.request("app.example.com", path).headers["x-request-id"]


class Upstream(BaseHTTPRequestHandler):
    """Answers as real ones do: mostly soon, sometimes late, now and then with an error."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(min(random.lognormvariate(-4.4, 0.9), 1))
        body = b"ok\n"
        self.send_response(500 if random.random() < 0.004 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# Whom a visitor asks for what; no name: a port that is closed to them.
ASKED = [
    *[("app.example.com", "/")] * 20,
    *[("app.example.com", "/orders/2048/")] * 14,
    *[("shop.example.com", "/basket/")] * 16,
    *[("api.example.com", "/v2/items?page=3")] * 18,
    *[("docs.example.com", "/")] * 3,
    ("app.example.com", "/admin/login/?next=/admin/auth/user/"),
    ("legacy.example.net", "/cgi-bin/report.pl?year=2019&format=pdf"),
    ("api.example.com", "/v1/tokens"),
    ("api.example.com", "/v1/tokens"),
    (None, ""),
]

# How many days they are good for, and for which names.
CERTIFICATES = {
    "shop": (9, ["shop.example.com", "www.shop.example.com", "basket.shop.example.com"]),
    "docs": (41, ["docs.example.com"]),
    "legacy": (3, ["legacy.example.net"]),
}


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def certify(path, days, names):
    subject, others = f"/CN={names[0]}", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{path}.key"]
    subprocess.run(["openssl", "req", "-x509", *key, "-out", f"{path}.pem", "-days", str(days), "-subj", subject,
                    "-addext", others], check=True, capture_output=True)
    os.chmod(f"{path}.key", 0o600)


def unused():
    """A port where nobody listens; held until the process ends, so that nobody will."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    HELD.append(held)
    return held.getsockname()[1]


HELD = []


def configuration(folder, ports):
    down, nobody = unused(), unused()
    return f"""
[sources]
office     = ["203.0.113.0/24", "2001:db8:10::/48"]
ci         = ["198.51.100.7"]
monitoring = ["192.0.2.0/28"]
partners   = ["198.51.100.64/26", "203.0.113.192/27"]
abuse      = ["192.0.2.128/25"]

[ports]
"127.0.0.1:0" = {{ serve = "https", allow = ["public"], deny = ["abuse"] }}
"127.0.0.2:0" = {{ serve = "http",  allow = ["public"], deny = ["abuse"] }}
"127.0.0.3:0" = {{ forward = "127.0.0.1:{ports[0]}", allow = ["office", "ci"] }}
"127.0.0.4:0" = {{ forward = "127.0.0.1:{ports[1]}", allow = ["office"] }}
"127.0.0.5:0" = {{ forward = "127.0.0.1:{ports[2]}", allow = ["monitoring"] }}
"127.0.0.6:0" = {{ serve = "https", allow = ["partners", "office"] }}
"127.0.0.7:0" = {{ forward = "127.0.0.1:{down}", allow = ["office", "partners"], deny = ["ci"] }}
"127.0.0.8:0" = {{ forward = "127.0.0.1:{down}", allow = ["ci"] }}
"127.0.0.9:0" = {{ serve = "http", allow = ["partners"] }}

[[site]]
domains     = ["app.example.com", "app.example.org"]
redirect    = ["www.app.example.com"]
upstream    = ["127.0.0.1:{ports[0]}", "127.0.0.1:{ports[1]}", "127.0.0.1:{down}"]
certificate = "internal"
  [[site.route]]
  path  = "/admin/"
  allow = ["office"]
  [[site.route]]
  path  = "/static/"
  files = "{folder}"
  [[site.route]]
  path     = "/old/"
  redirect = {{ to = "/new/", status = 308 }}

[[site]]
domains     = ["shop.example.com", "www.shop.example.com"]
upstream    = "127.0.0.1:{ports[1]}"
certificate = {{ cert = "{folder}/shop.pem", key = "{folder}/shop.key" }}

[[site]]
domains     = ["api.example.com"]
upstream    = "127.0.0.1:{ports[2]}"
certificate = "internal"
  [[site.route]]
  path = "/v1/"
  rate = {{ per = "client", limit = 20, every = "1m" }}

[[site]]
domains     = ["docs.example.com"]
upstream    = "127.0.0.1:{ports[2]}"
certificate = {{ cert = "{folder}/docs.pem", key = "{folder}/docs.key" }}

[[site]]
domains     = ["legacy.example.net"]
upstream    = "127.0.0.1:{down}"
certificate = {{ cert = "{folder}/legacy.pem", key = "{folder}/legacy.key" }}
  [site.proxy]
  hold = "100ms"

[[site]]
domains  = ["a-rather-long-name-for-a-tenant.customers.example.com"]
upstream = "127.0.0.1:{ports[0]}"

[acme]
email     = "ops@example.com"
directory = "https://localhost:{nobody}/dir"

[store]
path = "{folder}/store"

[log]
access = "off"

[admin]
socket = "{folder}/admin.sock"
listen = "127.0.0.1:0"
"""
