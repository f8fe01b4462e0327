"""Forward rows beside HAProxy in tcp mode and nginx's stream: what a transaction costs. See README.md here."""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "side-by-side"))

from peers import FOLDER, LOAD_CPU, PROXY_CPU, ROOT, WORK, Program, command, free_port  # noqa: E402

PASSES = {"haproxy": ("haproxy.cfg", "usr/sbin/haproxy"), "nginx": ("nginx.conf", "usr/sbin/nginx")}
IDLE = 2000  # connections that are held open for the memory row


@dataclass(frozen=True)
class Row:
    """One kind of load: a client's command, and how many transactions it makes."""

    name: str
    server: str
    count: int
    options: list

    def load(self, port):
        if self.server == "postgres":
            pgbench = ["pgbench", "-h", "127.0.0.1", "-p", port, "-U", "bench", "-n", "-S", "-M", "prepared"]
            return [*pgbench, *self.options, "postgres"]
        return ["redis-benchmark", "-h", "127.0.0.1", "-p", port, "--csv", "-n", self.count, *self.options]


ROWS = [
    Row("pgbench, select", "postgres", 40_000, ["-c16", "-j1", "-t2500"]),
    Row("pgbench, a connection each", "postgres", 800, ["-c8", "-j1", "-t100", "-C"]),
    Row("redis, GET 64 B", "redis", 60_000, ["-c", "50", "-t", "get", "-d", "64"]),
    Row("redis, GET 64 B, 16 at once", "redis", 300_000, ["-c", "50", "-P", "16", "-t", "get", "-d", "64"]),
    Row("redis, SET 16 KiB", "redis", 40_000, ["-c", "20", "-t", "set", "-d", "16384"]),
    Row("redis, SET 1 MiB", "redis", 1_500, ["-c", "8", "-t", "set", "-d", "1048576"]),
    Row("redis, a connection each", "redis", 10_000, ["-c", "50", "-k", "0", "-t", "ping_mbulk"]),
]


def main():
    asked = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {int(LOAD_CPU)})
    with ExitStack() as running:
        servers = {"postgres_server": postgres(running), "redis_server": redis(running)}
        peers = [Peer(name, servers, asked.edge.get(name), running) for name in [*PASSES, *asked.edge]]
        memory = {peer.name: measure_memory(peer) for peer in peers}
        rows = [row for row in ROWS if not asked.rows or any(part in row.name for part in asked.rows)]
        runs = [measure(row, peer, turn) for turn in range(asked.rounds) for row in rows for peer in peers]
    result = {"runs": runs, "memory": memory, "rounds": asked.rounds}
    (WORK / "forward.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + table(runs, memory, rows, [peer.name for peer in peers]))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edge", action="append", default=[], metavar="NAME=PATH", help="an edge; may be repeated")
    parser.add_argument("--rows", type=lambda text: text.split(";"), help="parts of rows' names; between them: ;")
    asked = parser.parse_args()
    asked.edge = dict(edge.split("=", 1) for edge in asked.edge)
    return asked


def postgres(running):
    """A PostgreSQL of this machine's own packages, which believes whoever comes. It does not run as root."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="vestibule-bench-")))
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    data, port = folder / "data", free_port()
    making = [*as_user, binaries / "initdb", "--no-sync", "-A", "trust", "-U", "bench", "-D", data]
    subprocess.run([str(word) for word in making], check=True, capture_output=True, cwd="/")
    settings = ["fsync=off", "listen_addresses=127.0.0.1", "max_connections=100", "shared_buffers=64MB"]
    line = [*as_user, binaries / "postgres", "-D", data, "-k", folder, "-p", port]
    server = Program("postgres", [*line, *(word for own in settings for word in ("-c", own))], LOAD_CPU, port)
    running.callback(server.stop)
    fill_in = ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-i", "-q", "postgres"]
    for _ in range(50):  # it listens before it lets anybody in
        if subprocess.run(fill_in, capture_output=True).returncode == 0:
            return port
        time.sleep(0.2)
    sys.exit("bench: PostgreSQL lets nobody in")


def redis(running):
    port = free_port()
    line = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    running.callback(Program("redis", line, LOAD_CPU, port).stop)
    return port


class Peer:
    """A proxy on a core of its own, with one worker, before both servers."""

    def __init__(self, name, servers, edge, running):
        self.name = name
        self.ports = {"postgres": free_port(), "redis": free_port(), "https": free_port()}
        template, program = (("vestibule.toml", edge) if edge else PASSES[name])
        text = (HERE / template).read_text()
        for key, value in ({"dir": WORK, "name": f"forward-{name}", "peers": FOLDER} | servers | self.ports).items():
            text = text.replace(f"@{key}@", str(value))
        config = WORK / f"forward-{name}.{template}"
        config.write_text(text)
        words = {"nginx": ["-p", WORK, "-c", config], "haproxy": ["-db", "-f", config]}
        line = [edge, "serve", "--config", config] if edge else command(program, *words[name])
        self.program = Program(f"forward-{name}", line, PROXY_CPU, self.ports["redis"])
        running.callback(self.program.stop)


def measure(row, peer, turn):
    """One run of a row: the proxy's own processor time, and what the client saw."""
    load = [str(word) for word in row.load(peer.ports[row.server])]
    if row.server == "redis":
        # What is asked for is 64 octets, and not the mebibyte that an earlier row may have left.
        put = ["redis-cli", "-p", str(peer.ports["redis"]), "set", "key:__rand_int__", "x" * 64]
        subprocess.run(put, check=True, capture_output=True)
    before = peer.program.cpu()
    told = subprocess.run(load, capture_output=True, text=True)
    spent = peer.program.cpu() - before
    rate = re.search(r"^tps = ([\d.]+)", told.stdout, re.M) or re.search(r'^"[^t][^"]*","([\d.]+)"', told.stdout, re.M)
    failed = told.returncode != 0 or "number of failed transactions: 0" not in told.stdout and row.server == "postgres"
    if failed or not rate:
        sys.exit(f"bench: {peer.name} did not carry all of “{row.name}”:\n{told.stdout[-2000:]}{told.stderr[-2000:]}")
    print(f"round {turn + 1}  {row.name:30} {peer.name:12} {spent / row.count:9.2f} µs {float(rate[1]):12.0f}/s", flush=True)
    return {"row": row.name, "peer": peer.name, "cpu_us": spent / row.count, "rate": float(rate[1])}


def measure_memory(peer):
    """What a connection adds that has had an answer and rests."""
    import socket

    base = settled(peer.program)
    with ExitStack() as held:
        for _ in range(IDLE):
            stream = held.enter_context(socket.create_connection(("127.0.0.1", peer.ports["redis"])))
            stream.sendall(b"PING\r\n")
            assert stream.recv(100) == b"+PONG\r\n"
        return (settled(peer.program) - base) / IDLE


def settled(program):
    last = -1
    while last != (last := program.memory()):
        time.sleep(0.5)
    return last


def table(runs, memory, rows, names):
    """Processor time a transaction in µs and its ratio to the first peer, then transactions a second."""
    lines = ["CPU µs a transaction: median (least–most) × of " + names[0] + "; transactions a second"]
    lines.append(f"{'':30}" + "".join(f"{name:>42}" for name in names))
    for row in rows:
        of = {name: [run for run in runs if (run["row"], run["peer"]) == (row.name, name)] for name in names}
        cells = []
        for name in names:
            costs = [run["cpu_us"] for run in of[name]]
            ratio = statistics.median(cost / first["cpu_us"] for cost, first in zip(costs, of[names[0]]))
            rate = statistics.median(run["rate"] for run in of[name])
            cells.append(f"{statistics.median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f}) ×{ratio:.2f}; {rate:.0f}/s")
        lines.append(f"{row.name:30}" + "".join(f"{cell:>42}" for cell in cells))
    lines.append(f"{'an idle connection, KiB':30}" + "".join(f"{memory[name]:>42.1f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
