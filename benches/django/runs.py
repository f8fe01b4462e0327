"""The runs, each a function that is given the edge's path and how large it is to be, and says rows of a table."""

import hashlib
import json
import statistics
import subprocess
import sys
import threading
import time

import apps
from client import HOST, Line, People
from parts import CPUS, HERE, WORK, Proxy, Server, command

PEERS = ("nginx", "vestibule")


def shield(edge, seconds=30, slow=500):
    """4 sync workers, 500 clients that upload 1 MB at 10 KB a second, and 10 people: how long these wait."""
    rows = []
    for name in ("gunicorn alone", *PEERS):
        with Parts() as parts:
            django = parts.server("gunicorn", "--workers", 4, "--worker-class", "sync", "--preload")
            tls = name in PEERS
            port = parts.proxy(name, django, edge).port if tls else django.port
            people(port, tls, 2)  # every worker has answered once, and every ticket is there
            alone = people(port, tls, seconds / 2)
            crowd = Slow(port, tls, slow)
            beside = people(port, tls, seconds)
            uploads = crowd.stop()
        before, after = percentile(alone.took, 99), percentile(beside.took, 99)
        unanswered = sum(count for answer, count in beside.answers.items() if answer != 200)
        rows.append({
            "before Django": name,
            "p99 without them, ms": round(before * 1000, 1),
            "p99 beside them, ms": round(after * 1000, 1),
            "ratio": round(after / before, 2),
            "answered": beside.answers[200],
            "not": unanswered,
            "uploads": uploads,
        })
    return rows


def retire(edge, requests=100_000):
    """--max-requests 50, 4 workers, concurrency 64, a quarter of them POSTs: how many requests fail."""
    rows = []
    for name in PEERS:
        with Parts() as parts:
            options = ("--workers", 4, "--threads", 4, "--max-requests", 50, "--preload")
            django = parts.server("gunicorn", *options)
            proxy = parts.proxy(name, django, edge)
            body = WORK / "django.body"
            body.write_bytes(b"x" * 1000)
            begin = time.monotonic()
            gets = load(proxy.port, "status/200", requests * 3 // 4, "-c48")
            posts = load(proxy.port, "echo", requests // 4, "-c16", f"-d{body}")
            (bad_gets, told), (bad_posts, more) = finished(gets), finished(posts)
        row = {"before Django": name, "requests": requests, "failed GETs": bad_gets, "failed POSTs": bad_posts}
        rows.append(row | {"seconds": round(time.monotonic() - begin), "statuses": f"{told} {more}"})
    return rows


def restart(edge, times=20):
    """gunicorn is restarted 20 times under load, with nobody listening in between: how many requests fail."""
    rows = []
    for name in PEERS:
        with Parts() as parts:
            options = ("--workers", 4, "--threads", 4, "--preload")
            django = parts.server("gunicorn", *options)
            proxy = parts.proxy(name, django, edge)
            crowd = People(proxy.port, 16, 10, posts=0.25)
            for _ in range(times):
                time.sleep(0.5)
                django.restart()
            time.sleep(1)
            crowd.stop()
        row = {"before Django": name, "restarts": times, "requests": sum(crowd.answers.values())}
        rows.append(row | {"failed": crowd.failed, "answers": dict(crowd.answers)})
    return rows


def events(edge):
    """How long after its sending a server-sent event arrives: 200 of them, one each 20 ms."""
    rows = []
    for name in ("uvicorn alone", *PEERS):
        with Parts() as parts:
            server = parts.server("uvicorn", application="apps:events")
            tls = name in PEERS
            port = parts.proxy(name, server, edge).port if tls else server.port
            line = Line(port, tls)
            line.request("GET", "/", headers={"Host": HOST})
            response, delays = line.getresponse(), []
            while text := response.readline():
                if text.startswith(b"data: "):
                    delays.append((time.monotonic_ns() - int(text[6:])) / 1e6)
        row = {"before Django": name, "first, ms": round(delays[0], 2), "median, ms": round(statistics.median(delays), 2)}
        rows.append(row | {"p99, ms": round(percentile(delays, 99), 2), "most, ms": round(max(delays), 2)})
    return rows


def transfer(edge):
    """1 GiB up and down: whether it is the same at the other end, and what memory the proxy takes meanwhile."""
    expected = hashlib.sha256()
    for block in apps.blocks():
        expected.update(block)
    rows = []
    for name in PEERS:
        with Parts() as parts:
            server = parts.server("gunicorn", "--workers", 1, application="apps:transfer")
            proxy = parts.proxy(name, server, edge)
            for way in (up, down):
                memory = Memory(proxy.program)
                begin = time.monotonic()
                same = way(Line(proxy.port)) == expected.hexdigest()
                took = time.monotonic() - begin
                row = {"before Django": name, "way": way.__name__, "same": same, "seconds": round(took, 1)}
                rows.append(row | memory.stop())
    return rows


def up(line):
    headers = {"Host": HOST, "Content-Length": str(apps.SIZE)}
    line.request("POST", "/", apps.blocks(), headers)
    return line.getresponse().read().decode()


def down(line):
    line.request("GET", "/", headers={"Host": HOST})
    response, digest = line.getresponse(), hashlib.sha256()
    while piece := response.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


class Parts:
    """What a run has started, stopped in the opposite order."""

    def __enter__(self):
        self.started = []
        return self

    def __exit__(self, *_):
        for part in reversed(self.started):
            part.stop()

    def server(self, name, *options, **more):
        self.started.append(Server(name, *options, **more))
        return self.started[-1]

    def proxy(self, name, server, edge):
        self.started.append(Proxy(name, server.port, edge if name == "vestibule" else None))
        return self.started[-1]


def people(port, tls, seconds):
    crowd = People(port, 10, 10, tls)
    time.sleep(seconds)
    return crowd.stop()


class Slow:
    """The slow senders, in a process of their own."""

    def __init__(self, port, tls, count):
        line = [sys.executable, HERE / "slow.py", str(port), WORK / "cert.pem" if tls else "", str(count)]
        self.child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.child.stdout.readline()

    def stop(self):
        told, _ = self.child.communicate("")
        return json.loads(told or "{}")


class Memory:
    """A program's memory in MiB, looked at ten times a second."""

    def __init__(self, program):
        self.program, self.seen, self.over = program, [program.memory()], threading.Event()
        self.thread = threading.Thread(target=self.look_on)
        self.thread.start()

    def look_on(self):
        while not self.over.wait(0.1):
            self.seen.append(self.program.memory())

    def stop(self):
        self.over.set()
        self.thread.join()
        time.sleep(0.5)
        before, most, after = self.seen[0], max(self.seen), self.program.memory()
        return {f"{when}, MiB": round(kib / 1024, 1) for when, kib in (("before", before), ("most", most), ("after", after))}


def load(port, path, requests, *options):
    output = WORK / f"django.h2load.{path.replace('/', '.')}.json"
    target = [f"--connect-to=127.0.0.1:{port}", f"https://{HOST}:{port}/{path}"]
    line = command("usr/bin/h2load", f"-n{requests}", "--h1", *options, f"--output-file={output}", *target)
    child = subprocess.Popen(["taskset", "-c", CPUS, *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return child, output, requests


def finished(load):
    child, output, requests = load
    child.communicate()
    codes = json.loads(output.read_text())["measurements"]["status_codes"]
    return requests - codes["2xx"], {code: count for code, count in codes.items() if count}


def percentile(samples, share):
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share / 100))] if samples else float("nan")
