"""What is asked of each peer: the rows of the table."""

from collections.abc import Callable
from dataclasses import dataclass

import load
from material import HOST, RSA_HOST
from peers import WORK

H1, H2, LARGE_H2 = ["--h1", "-c64"], ["-c32", "-m10"], ["-c8", "-w24", "-W26"]
FEW = ["--h1", "-c8"]
NO_FILES, NO_FORWARDING = ("haproxy", "relay"), ("caddy", "relay")


@dataclass(frozen=True)
class Row:
    """One kind of load: `requests` of `path` with h2load's `options`, or by another client."""

    name: str
    path: str
    requests: int
    options: list
    client: Callable = load.h2load
    host: str = HOST
    port: str = "https"
    log: bool = True
    group: str | None = None  # of the handshake, where that is what is measured
    latency: bool = False
    connections: int = 64  # of a client that is not h2load
    without: tuple = ("relay",)  # whom there is nothing to ask of

    def suits(self, name):
        return name not in self.without


def one(name, path, requests, options, **more):
    """A row that goes through the bare relay too, where it is HTTP/1.1."""
    return Row(name, path, requests, options, without=() if "--h1" in options else ("relay",), **more)


def static(name, path, requests, options):
    return Row(f"static, {name}", f"static/{path}", requests, options, without=NO_FILES)


def forward(name, path, requests, options):
    return Row(f"forward, {name}", path, requests, options, port="forward", without=NO_FORWARDING)


def handshakes(name, group, count=1200, **more):
    """A connection for each request, a thousand a second."""
    options = ["--h1", f"-c{count}", "-r10", "--rate-period=10ms", f"--groups={group}"]
    return Row(f"handshake, {name}", "1k", count, options, group=group, **more)


def post(path):
    return f"-d{WORK}/bodies/{path}"


RATED = "h1, 1 KiB, at half of saturation"
SATURATING = one("h1, 1 KiB", "1k", 30_000, H1)


def rated(rate, seconds=3):
    options = [*H1, "-r1", "--rate-period=2ms", f"--rps={rate / 64}"]
    return Row(RATED, "1k", rate * seconds, options, latency=True)


ROWS = [
    SATURATING,
    one("h2, 1 KiB", "1k", 30_000, H2),
    one("h1, 10 KiB", "10k", 20_000, H1),
    one("h2, 10 KiB", "10k", 20_000, H2),
    one("h1, 100 KiB", "100k", 8_000, H1),
    one("h2, 100 KiB", "100k", 8_000, H2),
    one("h1, 10 MiB", "10m", 100, FEW),
    one("h2, 10 MiB", "10m", 100, LARGE_H2),
    one("h1, POST 1 KiB", "sink", 20_000, [*H1, post("1k")]),
    one("h2, POST 1 KiB", "sink", 20_000, [*H2, post("1k")]),
    one("h1, POST 1 MiB", "sink", 400, [*FEW, post("1m")]),
    one("h2, POST 1 MiB", "sink", 400, ["-c8", post("1m")]),
    Row("h1, 1 KiB, no access log", "1k", 30_000, H1, log=False),
    Row("h2, 1 KiB, no access log", "1k", 30_000, H2, log=False),
    handshakes("X25519", "X25519"),
    handshakes("X25519MLKEM768", "X25519MLKEM768"),
    handshakes("RSA-2048 chain", "X25519", host=RSA_HOST),
    Row("handshake, resumed", "1k", 1200, [], client=load.resumed),
    Row("WebSocket echo, 1 KiB", "ws/", 64 * 150, [], client=load.echoes),
    forward("1 KiB", "1k", 30_000, H1),
    forward("100 KiB", "100k", 8_000, H1),
    static("h1, 1 KiB", "1k", 30_000, H1),
    static("h2, 1 KiB", "1k", 30_000, H2),
    static("h1, 100 KiB", "100k", 8_000, H1),
    static("h2, 100 KiB", "100k", 8_000, H2),
    static("h1, 10 MiB", "10m", 100, FEW),
    static("h2, 10 MiB", "10m", 100, LARGE_H2),
]
