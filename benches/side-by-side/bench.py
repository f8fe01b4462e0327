"""Beside nginx and HAProxy: what a request costs each proxy in processor time, in memory and in latency. See README.md here."""

import argparse
import json
import os
import resource
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import crowd
import draw
import goals
import machine
import material
import memory
import report
import runs
import sites
from peers import FOLDER, LOAD_CPU, ROOT, WORK, Backend, Echo, Peer, present

PARTS = "memory", "rows", "sites", "crowd"


def main():
    asked = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    material.make()
    if "sites" in asked.parts:
        sites.prepare()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {int(LOAD_CPU)})
    result = measure(asked, peers_of(asked))
    result["goals"] = [goal for edge in asked.edge for goal in goals.judge(result, edge)]
    (WORK / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (WORK / "result.svg").write_text(draw.draw(result))
    kept = " and ".join(str((WORK / name).relative_to(ROOT)) for name in ("result.json", "result.svg"))
    print(f"\n{report.table(result)}\n\nEvery run, and the plot: {kept}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edge", action="append", default=[], metavar="NAME=PATH", help="an edge; may be repeated")
    parser.add_argument("--peers", default="nginx,haproxy", help="comma-separated, of nginx, haproxy and caddy; or all")
    parser.add_argument("--rows", type=lambda text: text.split(";"), help="parts of rows' names; between them: ;")
    parser.add_argument("--parts", type=lambda text: text.split(","), help=f"comma-separated, of {', '.join(PARTS)}")
    asked = parser.parse_args()
    asked.edge = dict(edge.split("=", 1) for edge in asked.edge)
    # Some rows alone are asked for by whoever has no minute for the rest.
    asked.parts = asked.parts or (["rows"] if asked.rows else list(PARTS))
    return asked


def peers_of(asked):
    """Who is measured. The bare relay is always there."""
    there = present()
    wanted = there if asked.peers == "all" else [name for name in asked.peers.split(",") if name]
    for name in wanted:
        if name not in there:
            sys.exit(f"bench: {name} is not in {FOLDER}")
    return [*(name for name in wanted if name != "relay"), "relay", *asked.edge]


def measure(asked, names):
    with ExitStack() as running:
        backend, echo = Backend(), Echo()
        running.callback(backend.program.stop)
        running.callback(echo.program.stop)
        start = partial(started, backend=backend, echo=echo, edges=asked.edge)
        result = machine.describe(names, asked.edge) | {"rounds": asked.rounds, "peers": names, "edges": list(asked.edge)}
        result |= {"memory": {}, "rows": [], "sites": {}, "crowd": {}}
        if "memory" in asked.parts:
            result["memory"] = {name: memory_of(name, start) for name in names if name != "relay"}
        if "rows" in asked.parts:
            result |= runs.measure(names, list(asked.edge), asked.rounds, asked.rows, start)
        if "sites" in asked.parts:
            result["sites"] = sites.measure(names, asked.rounds, start)
        if "crowd" in asked.parts:
            result["crowd"] = crowd.measure(names, asked.rounds, start)
    return result


def started(name, running, *, backend, echo, edges, **more):
    """A peer that is stopped with what runs."""
    peer = Peer(name, backend, echo, edges.get(name), **more)
    running.callback(peer.program.stop)
    return peer


def memory_of(name, start):
    """Alone, so that no other process of the same program shares its memory."""
    with ExitStack() as running:
        return memory.measure(start(name, running))


if __name__ == "__main__":
    main()
