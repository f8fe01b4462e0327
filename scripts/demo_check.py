"""What a browser does, against a running demo: demo_check.py HTTPS_PORT HTTP_PORT CA [CHECK…]

Trusts the given CA and nothing else. Prints one line a check; exits 1 when one of them fails.
"""

import hashlib
import os
import re
import socket
import ssl
import sys
import time

import httpx
from websockets.sync.client import connect

from browser import Browser

HTTPS, HTTP, CA = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
URL = f"https://app.localhost:{HTTPS}"


def main():
    resolve_localhost_names()
    failures = 0
    for name, check in CHECKS.items():
        if sys.argv[4:] and name not in sys.argv[4:]:
            continue
        try:
            print(f"  ok      {name}: {check()}", flush=True)
        except Exception as why:  # every check is to be tried
            failures += 1
            print(f"  FAILED  {name}: {type(why).__name__}: {why}", flush=True)
    print(f"{len(sys.argv[4:] or CHECKS) - failures} passed, {failures} failed", flush=True)
    return 1 if failures else 0


def page():
    with client() as http:
        answer = http.get("/")
    expect(answer.status_code, 200)
    expect(answer.http_version, "HTTP/2")
    seen = dict(re.findall(r"<tr><th>([^<]+)</th><td>([^<]*)</td>", answer.text))
    expect(seen["scheme"], "https")
    expect(seen["is_secure"], "True")
    expect(seen["host"], f"app.localhost:{HTTPS}")
    expect(seen["client address"], "127.0.0.1")
    return f"{answer.http_version}, Django sees {seen['scheme']} from {seen['client address']}"


def upload():
    content = os.urandom(5 << 20)
    with client() as http:
        http.get("/")
        token = http.cookies["csrftoken"]
        headers = {"X-CSRFToken": token, "Origin": URL, "Referer": f"{URL}/"}
        answer = http.post("/upload", files={"file": ("random.bin", content)}, headers=headers)
    expect(answer.status_code, 200)
    expect(answer.json()["sha256"], hashlib.sha256(content).hexdigest())
    return f"{answer.json()['size']} octets, checksum equal"


def websocket():
    with connect(f"wss://app.localhost:{HTTPS}/ws/echo", ssl=trust(), origin=URL, open_timeout=10) as socket:
        for said in ("hello", "é" * 70_000):
            socket.send(said)
            expect(socket.recv(timeout=10), said)
    return "said back what it was told"


def events():
    times = []
    with client() as http, http.stream("GET", "/events/?count=3&every=0.4") as answer:
        expect(answer.status_code, 200)
        expect(answer.headers["content-type"], "text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data:"):
                times.append(time.monotonic())
    expect(len(times), 3)
    if times[-1] - times[0] < 0.5:
        raise AssertionError("the events came together: something held them back")
    return f"3 events over {times[-1] - times[0]:.1f} s"


def download():
    digest = hashlib.sha256()
    with client() as http:
        told = re.search(r'id="sha256">(\w+)<', http.get("/").text).group(1)
        with http.stream("GET", "/download") as answer:
            for block in answer.iter_bytes():
                digest.update(block)
    expect(digest.hexdigest(), told)
    return "64 MiB, checksum equal to the page's"


def spoofing():
    forged = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X_Forwarded_For": "6.6.6.6",
    }
    with client() as http:
        seen = http.get("/echo", headers=forged).json()
    if "6.6.6.6" in str(seen) or "evil" in str(seen):
        raise AssertionError(f"a forged header reached Django: {seen['headers']}")
    expect(seen["is_secure"], True)
    return f"dropped; X-Forwarded-For is {seen['headers']['x-forwarded-for']}"


def redirect():
    answer = httpx.post(f"http://app.localhost:{HTTP}/any/path?q=1", trust_env=False)
    expect(answer.status_code, 308)
    expect(answer.headers["location"], f"{URL}/any/path?q=1")
    return f"308 to {answer.headers['location']}"


def unknown_names():
    for name in ("other.localhost", None):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", HTTPS), 10) as raw:
            try:
                context.wrap_socket(raw, server_hostname=name)
            except ssl.SSLError as why:
                if "UNRECOGNIZED_NAME" not in str(why).upper().replace(" ", "_"):
                    raise
            else:
                raise AssertionError(f"a certificate was shown to {name}")
    return "unrecognized_name, and no certificate"


def browser():
    """The page and a WebSocket in Chromium, which takes the CA's certificate as it takes anybody's."""
    echo = """new Promise((told, failed) => {
      const socket = new WebSocket("/ws/echo");
      socket.onopen = () => socket.send("hello");
      socket.onmessage = (message) => told(message.data);
      socket.onerror = () => failed(new Error("the WebSocket failed"));
    })"""
    with Browser(ca=CA) as chromium:
        tab = chromium.page().open(f"{URL}/")
        expect(tab.run("isSecureContext && document.querySelector('th').textContent"), "scheme")
        protocol = tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        expect(protocol, "h2")
        expect(tab.run(echo), "hello")
        return f"{tab.run('document.title')!r} in Chromium, over {protocol}, and its WebSocket says back what it is told"


CHECKS = {
    "page": page,
    "browser": browser,
    "upload": upload,
    "websocket": websocket,
    "events": events,
    "download": download,
    "spoofing": spoofing,
    "redirect": redirect,
    "unknown-names": unknown_names,
}


def client():
    return httpx.Client(http2=True, verify=trust(), base_url=URL, timeout=30, trust_env=False)


def trust():
    return ssl.create_default_context(cafile=CA)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} where {wanted!r} was expected")


def resolve_localhost_names():
    """Names under .localhost are the loopback address, as browsers have it (RFC 6761 section 6.3)."""
    ask = socket.getaddrinfo

    def answer(host, *rest, **options):
        local = isinstance(host, str) and host.endswith(".localhost")
        return ask("127.0.0.1" if local else host, *rest, **options)

    socket.getaddrinfo = answer


if __name__ == "__main__":
    sys.exit(main())
