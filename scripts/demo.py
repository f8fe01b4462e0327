"""Starts gunicorn, uvicorn and the edge, says what to try, and shows the access log until Ctrl-C.

With ACME=1 the certificate comes from a CA, pebble, as it would from Let's Encrypt.
With --check it runs demo_check.py against them instead, and exits with its answer.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from demo_ca import Pebble

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
VENV = ROOT / "build" / "venv" / "bin"
ACME = os.environ.get("ACME") == "1"
CA = DEMO / "ca" / "root.pem" if ACME else DEMO / "certs" / "internal" / "root.pem"
PATIENCE = 60  # seconds that a part may take to come up


class Failed(Exception):
    """A part that did not come up; the text says which, and where to look."""


def main():
    edge, check = sys.argv[1], "--check" in sys.argv
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(0))
    try:
        with ExitStack() as parts:
            return run(edge, check, parts)
    except KeyboardInterrupt:
        return 0
    except Failed as why:
        print(f"demo: {why}", file=sys.stderr)
        return 1


def run(edge, check, parts):
    DEMO.mkdir(parents=True, exist_ok=True)
    sockets = Path(tempfile.mkdtemp(prefix="vestibule-demo-"))  # a unix socket's path may have 107 octets
    parts.callback(shutil.rmtree, sockets, ignore_errors=True)
    asgi_port = start_django(sockets / "gunicorn.sock", parts)
    https, http, families = choose_ports()
    config = DEMO / "vestibule.toml"
    ca = start_ca(https, http, parts) if ACME else None
    config.write_text(configuration(sockets, asgi_port, https, http, families, ca))

    output = open(DEMO / "access.log", "w") if check else None
    up = r"a certificate was obtained and is in use" if ACME else r"\bready\b"
    serving, _ = start("vestibule", [edge, "serve", "--config", config], up, parts, stdout=output)
    if check:
        return subprocess.call([VENV / "python", ROOT / "scripts/demo_check.py", str(https), str(http), CA])
    print(what_to_try(https, http), flush=True)
    subprocess.call([edge, "check", "--config", config])
    print("\nRequests, as they come (Ctrl-C ends everything):\n", flush=True)
    if code := serving.wait():
        raise Failed(f"the edge left with {code}; its log is {DEMO}/vestibule.log")
    return 0


def start_django(unix_socket, parts):
    """gunicorn on the socket, uvicorn on a free port, which is returned."""
    secret = DEMO / "secret"
    secret.write_text(secrets.token_urlsafe(64))
    secret.chmod(0o600)
    env = os.environ | {"DJANGO_SECRET_KEY_FILE": str(secret), "PYTHONDONTWRITEBYTECODE": "1"}
    site = {"cwd": ROOT / "tests" / "django", "env": env}
    gunicorn = [VENV / "gunicorn", "front.wsgi", "--bind", f"unix:{unix_socket}", "--workers", "4"]
    start("gunicorn", [*gunicorn, "--max-requests", "1000"], r"Booting worker", parts, **site)
    uvicorn = [VENV / "uvicorn", "front.asgi:application", "--host", "127.0.0.1", "--port", "0"]
    uvicorn += ["--lifespan", "off", "--no-access-log"]
    _, running = start("uvicorn", uvicorn, r"running on http://127\.0\.0\.1:(\d+)", parts, **site)
    return int(running.group(1))


def start_ca(https, http, parts):
    """pebble, which looks at the edge's own ports."""
    ca = Pebble(ROOT, DEMO / "ca", any_port, http, https)
    # What an older pebble issued, nobody trusts any more.
    shutil.rmtree(DEMO / "certs" / "acme", ignore_errors=True)
    for name, command, ready in [
        ("pebble-challtestsrv", ca.dns(), r"Starting"),
        ("pebble", ca.command(), r"ACME directory available"),
    ]:
        # Their log is what they print.
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": os.environ | {"PEBBLE_VA_NOSLEEP": "1"}}
        child = subprocess.Popen(list(map(str, command)), text=True, **options)
        watch(name, child, child.stdout, ready, parts)
    ca.write_root()
    return ca


def start(name, command, ready, parts, **options):
    """Starts a child whose log (its stderr) goes to a file, and waits for the line that says it is ready."""
    child = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, **options)
    return watch(name, child, child.stderr, ready, parts)


def watch(name, child, lines, ready, parts):
    parts.callback(end, child)
    log, found, matched = DEMO / f"{name}.log", threading.Event(), []

    def follow():
        with open(log, "w") as file:
            for line in lines:
                file.write(line)
                file.flush()
                if not matched and (match := re.search(ready, line)):
                    matched.append(match)
                    found.set()
        found.set()

    threading.Thread(target=follow, daemon=True).start()
    if not found.wait(PATIENCE) or not matched:
        raise Failed(f"{name} did not come up. Its log, {log}, ends:\n{log.read_text()[-2000:]}")
    return child, matched[0]


def end(child):
    """Asks, then insists. One process, by its id."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def choose_ports():
    """8443 and 8080 where they are free on every loopback address, else what the kernel gives."""
    families = [("127.0.0.1", socket.AF_INET)]
    if free("::1", socket.AF_INET6, 0):
        families.append(("[::1]", socket.AF_INET6))
    return choose(8443, families), choose(8080, families), [host for host, _ in families]


def choose(wanted, families):
    for _ in range(50):
        if all(free(host.strip("[]"), family, wanted) for host, family in families):
            return wanted
        wanted = any_port()
    raise Failed("no free port on the loopback addresses")


def any_port():
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        return attempt.getsockname()[1]


def free(host, family, port):
    try:
        with socket.socket(family) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((host, port))
            return True
    except OSError:
        return False


def configuration(sockets, asgi_port, https, http, families, ca):
    rows = [f'"{host}:{https}" = {{ serve = "https", allow = ["public"] }}' for host in families]
    rows += [f'"{host}:{http}" = {{ serve = "http",  allow = ["public"] }}' for host in families]
    return f"""# Written by `make demo`. Yours to change: `kill -HUP` the edge, and it is read again.
[ports]
{chr(10).join(rows)}

[[site]]
domains     = ["app.localhost"]
upstream    = "unix:{sockets}/gunicorn.sock"
certificate = "{"acme" if ca else "internal"}"
hsts        = false    # a browser that remembers it would refuse http on this name's other ports

  [[site.route]]
  path     = "/ws/"
  upstream = "127.0.0.1:{asgi_port}"
  [[site.route]]
  path     = "/events/"
  upstream = "127.0.0.1:{asgi_port}"

{ca.table() if ca else ""}
[store]
path = "{DEMO}/certs"

[log]
format = "text"

[admin]
socket = "{sockets}/admin.sock"
"""


def what_to_try(https, http):
    url, ca = f"https://app.localhost:{https}", os.path.relpath(CA)
    python, check = os.path.relpath(VENV / "python"), os.path.relpath(ROOT / "scripts/demo_check.py")
    curl = f"curl --cacert {ca}"
    return f"""
  Django, through vestibule:  {url}/
  {"The CA, a pebble" if ACME else "Its own CA"}, to import into a browser:  {CA}

  Try
    the page, over HTTP/2          {curl} -sD- {url}/
    an upload and its checksum     {python} {check} {https} {http} {ca} upload
    a WebSocket                    {python} {check} {https} {http} {ca} websocket
    an event stream                {curl} -N {url}/events/
    a download, checksummed        {curl} -s {url}/download | sha256sum
    http goes to https             curl -sD- http://app.localhost:{http}/any/path?q=1
    forged headers are dropped     {curl} -s -H 'X-Forwarded-For: 6.6.6.6' -H 'X_Real_IP: 6.6.6.6' {url}/echo
    another name gets no TLS       curl -k https://other.localhost:{https}/
    the plain address neither      curl -k https://127.0.0.1:{https}/
    all of it, checked             make demo-check
"""


if __name__ == "__main__":
    sys.exit(main())
