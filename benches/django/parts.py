"""What the runs are made of: a real gunicorn or uvicorn, and before it nginx or the edge."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "side-by-side"))

from peers import ROOT, WORK, Program, command, free_port  # noqa: E402

HOST = "bench.example"
VENV = ROOT / "build" / "venv" / "bin"
CPUS = ",".join(map(str, sorted(os.sched_getaffinity(0))))  # as many as there are: the parts share the machine
FORWARDED = {"X-Forwarded-Proto": "https", "Host": HOST}  # what a proxy would say, for gunicorn without one


class Server:
    """An application server of the tests' Django, or of the plain applications of apps.py."""

    def __init__(self, name, *options, application="front.wsgi", port=None, host="127.0.0.1"):
        self.name, self.port, self.host = name, port or free_port(), host
        self.line = {
            "gunicorn": ["--bind", f"{host}:{self.port}", "--graceful-timeout", "5", *options, application],
            "uvicorn": ["--host", host, "--port", self.port, "--lifespan", "off", *options, application],
            "python": options,
        }[name]
        self.start()

    def start(self):
        environment = {
            "DJANGO_SECRET_KEY_FILE": str(secret()),
            "DJANGO_ALLOWED_HOSTS": HOST,
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{ROOT / 'tests' / 'django'}:{HERE}",
        }
        os.environ.update(environment)
        self.program = Program(f"django.{self.name}", [VENV / self.name, *self.line], CPUS, self.port, self.host)

    def restart(self):
        """As `systemctl restart` does it: nobody listens between one and the next."""
        self.stop()
        self.start()

    def stop(self):
        self.program.stop()


class Proxy:
    """nginx or the edge, each as its manual tells a Django team to set it up."""

    def __init__(self, name, upstream, edge=None, names=False):
        self.name, self.port = name, free_port()
        template = "vestibule.toml" if edge else "nginx.conf"
        at = upstream if names else f"127.0.0.1:{upstream}"
        # nginx looks a name up again where it is told to, and by whom.
        server = f"zone django 64k; resolver 127.0.0.1 valid=1s ipv6=off; server {at} resolve;" if names else f"server {at};"
        config = fill(template, name=name, port=self.port, upstream=at, server=server)
        line = [edge, "serve", "--config", config]
        nginx = [*command("usr/sbin/nginx"), "-p", WORK, "-c", config]
        self.program = Program(f"django.{name}", line if edge else nginx, CPUS, self.port)

    def stop(self):
        self.program.stop()


def fill(template, **values):
    text = (HERE / template).read_text()
    for key, value in ({"dir": WORK} | values).items():
        text = text.replace(f"@{key}@", str(value))
    into = WORK / f"django.{template}"
    into.write_text(text)
    return into


def secret():
    path = WORK / "django.secret"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(48))
    return path


def make_certificate():
    """P-256, the same for all."""
    key, cert = WORK / "key.pem", WORK / "cert.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    named = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", cert]
    subprocess.run([*new, *named], check=True, capture_output=True)
