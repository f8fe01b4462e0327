"""Years in minutes: connections come and go while the edge is reloaded and upgraded; its memory and descriptors are sampled
and drawn. By hand: python3 benches/soak.py EDGE MINUTES FOLDER. Ends with 1 where a request failed."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = "app.localhost"
COUNTS = {"requests": 0, "connections": 0, "reloads": 0, "upgrades": 0}
FAILED = []
STOP = threading.Event()


def main():
    program, minutes, out = Path(sys.argv[1]).resolve(), float(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        edge = Edge(program, Path(folder), upstream.server_port)
        try:
            churn = [threading.Thread(target=ask, args=(edge, kept)) for kept in (True, True, False, False)]
            for thread in churn:
                thread.start()
            samples = live(edge, time.monotonic() + minutes * 60)
            STOP.set()
            for thread in churn:
                thread.join()
        finally:
            STOP.set()
            edge.end()
    (out / "soak.tsv").write_text("".join("\t".join(map(str, one)) + "\n" for one in samples))
    (out / "soak.svg").write_text(draw(samples))
    print(COUNTS, f"failed {len(FAILED)}", *FAILED[:5], f"first {samples[1]}", f"last {samples[-1]}", sep="\n")
    sys.exit(bool(FAILED))


def live(edge, end):
    """Seconds, KiB of memory, descriptors, and how many upgrades there were: each half second."""
    begun, samples, rounds = time.monotonic(), [], 0
    while time.monotonic() < end:
        rounds += 1
        if rounds % 20 == 0:
            edge.upgrade()
        elif rounds % 4 == 0:
            os.kill(edge.pid, signal.SIGHUP)
            COUNTS["reloads"] += 1
        time.sleep(0.5)
        samples.append((round(time.monotonic() - begun, 1), edge.memory(), edge.descriptors(), COUNTS["upgrades"]))
    return samples


class Edge:
    def __init__(self, program, folder, upstream):
        self.program, self.folder = program, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "edge.toml").write_text(f"""
[ports]
"127.0.0.1:{self.port}" = {{ serve = "https", allow = ["public"] }}
[[site]]
domains = ["{NAME}"]
upstream = "127.0.0.1:{upstream}"
certificate = "internal"
[store]
path = "{folder}/store"
[admin]
socket = "{folder}/admin.sock"
[log]
access = "off"
[process]
grace = "5s"
""")
        self.log = open(folder / "log", "wb")
        arguments = [program, "serve", "--config", folder / "edge.toml"]
        self.first = subprocess.Popen(arguments, stderr=self.log, stdout=self.log, cwd=folder)
        self.pid = self.first.pid
        self.wait(lambda: self.status() == self.pid)
        self.context = ssl.create_default_context(cafile=folder / "store/internal/root.pem")

    def upgrade(self):
        before = self.pid
        os.kill(before, signal.SIGUSR2)
        self.wait(lambda: self.status() not in (None, before))
        self.pid = self.status()
        COUNTS["upgrades"] += 1

    def status(self):
        asked = [self.program, "status", "--socket", self.folder / "admin.sock"]
        told = subprocess.run(asked, capture_output=True, text=True).stdout
        found = re.search(r"^process +(\d+)$", told, re.M)
        return int(found.group(1)) if found else None

    def wait(self, done):
        end = time.monotonic() + 60
        while not done():
            if time.monotonic() > end:
                raise TimeoutError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def memory(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()).group(1))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        self.first.poll() is None and self.first.kill()
        self.first.wait()


def ask(edge, kept):
    while not STOP.is_set():
        try:
            COUNTS["connections"] += 1
            converse(edge, kept)
        except OSError as error:
            FAILED.append(repr(error))


def converse(edge, kept):
    with socket.create_connection(("127.0.0.1", edge.port), 30) as raw:
        with edge.context.wrap_socket(raw, server_hostname=NAME) as tls:
            while not STOP.is_set():
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}:{edge.port}\r\n\r\n".encode())
                answer = b""
                while not answer.endswith(b"\r\n\r\nok"):
                    block = tls.recv(65536)
                    if not block:
                        raise OSError(f"ended after {answer!r}")
                    answer += block
                COUNTS["requests"] += 1
                if not kept or b"connection: close" in answer.lower():
                    return


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def log_message(self, *_):
        pass


def draw(samples):
    """Two lines over time: memory and descriptors, each to its own scale, from nought."""
    width, height, last = 900, 240, samples[-1][0] or 1
    lines = []
    for column, colour, unit in ((1, "#1f6feb", "KiB of memory"), (2, "#d1242f", "descriptors")):
        most = max(one[column] for one in samples) or 1
        points = " ".join(f"{x / last * width:.1f},{height - one[column] / most * (height - 40):.1f}" for x, one in
                          ((one[0], one) for one in samples))
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        lines.append(f'<text x="10" y="{column * 16}" fill="{colour}" font-size="13">{unit}, at most {most}</text>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{"".join(lines)}</svg>\n'


if __name__ == "__main__":
    main()
