"""Beside nginx: what a request costs each proxy in processor time, in memory and in latency. See README.md here."""

import argparse
import json
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from peers import FOLDER, LOAD_CPU, ROOT, WORK, Backend, Peer, command, present

HOST = "bench.example"
IDLE = 1000  # connections that are held open for the memory row


@dataclass(frozen=True)
class Row:
    """One kind of load: `requests` of `path` with h2load's `options`."""

    name: str
    path: str
    requests: int
    options: list
    handshake: bool = False
    latency: bool = False
    files: bool = False

    def suits(self, name):
        return not self.files or name != "haproxy"  # which serves none


def handshakes(group, count=1200):
    options = ["--h1", f"-c{count}", "-r10", "--rate-period=10ms", f"--groups={group}"]
    return Row(f"handshake, {group}", "1k", count, options, handshake=True)


ROWS = [
    Row("h1, 1 KiB", "1k", 50_000, ["--h1", "-c64"]),
    Row("h2, 1 KiB", "1k", 50_000, ["-c32", "-m10"]),
    Row("h1, 100 KiB", "100k", 10_000, ["--h1", "-c64"]),
    Row("h2, 100 KiB", "100k", 10_000, ["-c32", "-m10"]),
    Row("h1, 10 MiB", "10m", 100, ["--h1", "-c8"]),
    Row("h2, 10 MiB", "10m", 100, ["-c8", "-w24", "-W26"]),
    Row("h1, POST 1 KiB", "sink", 20_000, ["--h1", "-c64", f"-d{WORK}/bodies/1k"]),
    Row("h1, POST 1 MiB", "sink", 500, ["--h1", "-c8", f"-d{WORK}/bodies/1m"]),
    Row("h2, POST 1 MiB", "sink", 500, ["-c8", f"-d{WORK}/bodies/1m"]),
    Row("static, h1, 1 KiB", "static/1k", 50_000, ["--h1", "-c64"], files=True),
    Row("static, h2, 1 KiB", "static/1k", 50_000, ["-c32", "-m10"], files=True),
    Row("static, h1, 100 KiB", "static/100k", 10_000, ["--h1", "-c64"], files=True),
    Row("static, h2, 100 KiB", "static/100k", 10_000, ["-c32", "-m10"], files=True),
    Row("static, h1, 10 MiB", "static/10m", 200, ["--h1", "-c8"], files=True),
    Row("static, h2, 10 MiB", "static/10m", 200, ["-c8", "-w24", "-W26"], files=True),
    handshakes("X25519"),
    handshakes("X25519MLKEM768"),
    Row("h1, 1 KiB, at 6,400/s", "1k", 6_400, ["--h1", "-c64", "-r1", "--rate-period=2ms", "--rps=100"], latency=True),
]


def main():
    asked = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    make_bodies()
    make_certificate()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {int(LOAD_CPU)})
    with ExitStack() as running:
        backend = Backend()
        running.callback(backend.program.stop)
        peers = [start(name, backend, asked.edge, running) for name in peers_of(asked)]
        # Some rows alone are asked for by whoever has no minute for the rest.
        memory = {} if asked.rows else {peer.name: measure_memory(peer) for peer in peers}
        rows = [row for row in ROWS if not asked.rows or any(part in row.name for part in asked.rows)]
        runs = [
            measure(row, peer, turn)
            for turn in range(asked.rounds)
            for row in rows
            for peer in peers
            if row.suits(peer.name)
        ]
    result = summary(runs, memory, [peer.name for peer in peers], rows, asked.rounds)
    (WORK / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + table(result) + f"\n\nEvery run: {(WORK / 'result.json').relative_to(ROOT)}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edge", action="append", default=[], metavar="NAME=PATH", help="an edge; may be repeated")
    parser.add_argument("--peers", default="nginx", help="comma-separated, of nginx, haproxy and caddy; or all")
    parser.add_argument("--rows", type=lambda text: text.split(";"), help="parts of rows' names; between them: ;")
    asked = parser.parse_args()
    asked.edge = dict(edge.split("=", 1) for edge in asked.edge)
    return asked


def peers_of(asked):
    there = present()
    wanted = there if asked.peers == "all" else [name for name in asked.peers.split(",") if name]
    for name in wanted:
        if name not in there:
            sys.exit(f"bench: {name} is not in {FOLDER}")
    return [*wanted, *asked.edge]


def start(name, backend, edges, running):
    peer = Peer(name, backend, edges.get(name))
    running.callback(peer.program.stop)
    return peer


def make_bodies():
    bodies = WORK / "bodies"
    bodies.mkdir(exist_ok=True)
    for name, size in (("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20), ("10m", 10 << 20)):
        (bodies / name).write_bytes(bytes(range(256)) * (size // 256))


def make_certificate():
    """P-256, the same for all."""
    key, cert = WORK / "key.pem", WORK / "cert.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    named = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", cert]
    subprocess.run([*new, *named], check=True, capture_output=True)
    (WORK / "both.pem").write_text(cert.read_text() + key.read_text())


def measure(row, peer, turn):
    """One run of a row: the proxy's own processor time, and what the client saw."""
    output = WORK / "h2load.json"
    target = [f"--connect-to=127.0.0.1:{peer.port}", f"https://{HOST}:{peer.port}/{row.path}"]
    cipher = "--tls13-ciphers=TLS_AES_128_GCM_SHA256"
    load = command("usr/bin/h2load", f"-n{row.requests}", *row.options, cipher, f"--output-file={output}", *target)
    before = peer.program.cpu()
    told = subprocess.run(load, capture_output=True, text=True).stdout
    spent = peer.program.cpu() - before
    seen = json.loads(output.read_text())["measurements"]
    check(row, peer, told, seen)
    requests = seen["performance"]["request"]["samples"] if row.latency else []
    print(f"round {turn + 1}  {row.name:28} {peer.name:10} {spent / row.requests:10.1f} µs", flush=True)
    run = {"row": row.name, "peer": peer.name, "round": turn}
    run |= {"cpu_us": spent / row.requests, "seconds": seen["duration"]}
    return run | {f"p{share}_us": percentile(requests, share) for share in (50, 99, 99.9) if requests}


def check(row, peer, told, seen):
    """A run counts when every request was answered with 200, and every handshake was a full one."""
    good = seen["status_codes"]["2xx"] == row.requests and "Resumption: no" in told
    group = re.search(r"Negotiated Group: (\S+)", told)
    if row.handshake:
        good = good and group and row.name.lower().endswith(group[1].lower())
    if not good:
        sys.exit(f"bench: {peer.name} did not answer all of “{row.name}”. h2load says:\n{told[-3000:]}")


def percentile(samples, share):
    """The sample (given in seconds) below which `share` percent lie, in microseconds."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share / 100))] * 1e6


def measure_memory(peer):
    """Its memory before its first request, and what an idle connection adds that has had its answer."""
    base = settled(peer.program)
    told = {"base_kib": base}
    with ExitStack() as held:
        for key, protocol, ask in (("connection_kib", "http/1.1", ask_h1), ("h2_connection_kib", "h2", ask_h2)):
            context = ssl.create_default_context(cafile=WORK / "cert.pem")
            context.set_alpn_protocols([protocol])
            for _ in range(IDLE):
                stream = context.wrap_socket(socket.create_connection(("127.0.0.1", peer.port)), server_hostname=HOST)
                held.enter_context(stream)
                ask(stream, f"{HOST}:{peer.port}")
            full = settled(peer.program)
            told[key], base = (full - base) / IDLE, full
    return told


def ask_h1(stream, host):
    stream.sendall(f"GET /1k HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < 1024:
        answer += received(stream)


def ask_h2(stream, host):
    """One request on stream 1 (RFC 9113): GET, https, then :path and :authority as literals (RFC 7541 section 6.2.2)."""
    head = b"\x82\x87\x04\x03/1k\x01" + bytes([len(host)]) + host.encode()
    frames = frame(SETTINGS) + frame(SETTINGS, flags=1) + frame(HEADERS, head, END_STREAM | 4, 1)
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
    answer = b""
    while True:
        while len(answer) < 9 or len(answer) < 9 + length(answer):
            answer += received(stream)
        kind, flags = answer[3], answer[4]
        answer = answer[9 + length(answer) :]
        if kind == DATA and flags & END_STREAM:
            return


DATA, HEADERS, SETTINGS, END_STREAM = 0, 1, 4, 1


def frame(kind, payload=b"", flags=0, stream=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def length(frame):
    return int.from_bytes(frame[:3], "big")


def received(stream):
    piece = stream.recv(65536)
    if not piece:
        sys.exit("bench: a connection was closed before its answer")
    return piece


def settled(program):
    """The memory, once it stands still for half a second."""
    last = -1
    while last != (last := program.memory()):
        time.sleep(0.5)
    return last


def summary(runs, memory, names, rows, rounds):
    """Medians and spreads; ratios are made within a round, to the first peer, and then the median is taken."""
    told = []
    for row in rows:
        there = [name for name in names if row.suits(name)]
        of = {name: [run for run in runs if (run["row"], run["peer"]) == (row.name, name)] for name in there}
        cells = {}
        for name in there:
            costs = [run["cpu_us"] for run in of[name]]
            ratios = [cost / first["cpu_us"] for cost, first in zip(costs, of[there[0]])]
            cells[name] = {"cpu_us": statistics.median(costs), "least": min(costs), "most": max(costs)}
            cells[name]["ratio"] = statistics.median(ratios)
            for key in ("p50_us", "p99_us", "p99.9_us"):
                if key in of[name][0]:
                    cells[name][key] = statistics.median(run[key] for run in of[name])
        told.append({"row": row.name, "peers": cells})
    return {"rounds": rounds, "peers": names, "rows": told, "memory": memory, "runs": runs}


def table(result):
    """Processor time a request in µs, least to most, and the ratio to the first peer."""
    names = result["peers"]
    lines = ["CPU µs a request: median (least–most) × of " + names[0], line("", names)]
    for row in result["rows"]:
        cells = (row["peers"].get(name) for name in names)
        lines.append(line(row["row"], (cost(cell) if cell else "–" for cell in cells)))
    for row in result["rows"]:
        if "p50_us" in row["peers"].get(names[0], {}):
            for key, label in (("p50_us", "p50"), ("p99_us", "p99"), ("p99.9_us", "p99.9")):
                lines.append(line(f"  latency {label}, µs", (f"{row['peers'][name][key]:.0f}" for name in names)))
    if not result["memory"]:
        return "\n".join(lines)
    memory = [result["memory"][name] for name in names]
    lines.append(line("memory at rest, KiB", (f"{cell['base_kib']}" for cell in memory)))
    lines.append(line("an idle TLS connection, KiB", (f"{cell['connection_kib']:.1f}" for cell in memory)))
    lines.append(line("the same over HTTP/2, KiB", (f"{cell['h2_connection_kib']:.1f}" for cell in memory)))
    return "\n".join(lines)


def cost(cell):
    return f"{cell['cpu_us']:.1f} ({cell['least']:.1f}–{cell['most']:.1f}) ×{cell['ratio']:.2f}"


def line(name, cells):
    return f"{name:28}" + "".join(f"{cell:>36}" for cell in cells)


if __name__ == "__main__":
    main()
