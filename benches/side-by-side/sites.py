"""Many sites, each with a certificate of its own: how soon they are served, in how much memory, and what a request costs then."""

import json
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace

from load import ask, check, connect, h2load_line, trusting
from material import make_sites, site_names
from peers import WORK, Peer
from rows import SATURATING

COUNTS = 1, 100, 10_000
STARTS = 3
ASKED = 8  # of the sites, spread over all of them, each by a client of its own
LOAD = replace(SATURATING, name="a request with many sites", requests=2500, options=["--h1", "-c8"])
WITHOUT = "caddy", "relay"


def prepare():
    make_sites(max(COUNTS))


def measure(names, rounds, start):
    """For each of the names: starts alone, then the loads of each count in turn."""
    return {name: {"sites": starts(name, start)} | loads(name, rounds, start) for name in names if name not in WITHOUT}


def starts(name, start):
    """Alone on the machine, so that no other process of the same program shares its memory."""
    told = {}
    for count in COUNTS:
        seconds, memory = zip(*(started(name, count, start) for _ in range(STARTS)))
        told[count] = {"start_s": statistics.median(seconds), "memory_kib": statistics.median(memory)}
        told[count] |= {"starts_s": seconds}
        print(f"{count:6} sites  {name:12} {told[count]['start_s']:8.3f} s {told[count]['memory_kib']:10.0f} KiB", flush=True)
    return told


def started(name, count, start):
    """From the process's start until the site that was named last has given a good answer; then its memory."""
    with ExitStack() as running:
        peer = serve(name, count, start, running)
        last = site_names(count)[-1]
        with connect(peer.ports["https"], trusting(f"sites/{last}.pem"), last) as stream:
            ask(stream, last)
        return time.monotonic() - peer.program.began, peer.program.settled_memory()


def serve(name, count, start, running) -> Peer:
    return start(name, running, label=f"{name}-{count}-sites", folder="sites", sites=site_names(count))


def loads(name, rounds, start):
    """What a request costs with each count, in turn, all of them being there."""
    with ExitStack() as running:
        peers = {count: serve(name, count, start, running) for count in COUNTS}
        costs = [{count: cost(peers[count], turn) for count in COUNTS} for turn in range(rounds)]
    most, least = max(COUNTS), min(COUNTS)
    ratio = statistics.median(turn[most] / turn[least] for turn in costs)
    medians = {count: statistics.median(turn[count] for turn in costs) for count in COUNTS}
    return {"cpu_us": medians, "ratio": ratio, "rounds": costs}


def cost(peer, turn):
    names = peer.sites[:: max(1, len(peer.sites) // ASKED)]
    hosts = [names[at % len(names)] for at in range(ASKED)]
    outputs = [WORK / f"h2load-{at}.json" for at in range(ASKED)]
    before = peer.program.cpu()
    lines = [h2load_line(LOAD, peer, output, host) for output, host in zip(outputs, hosts)]
    clients = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for line in lines]
    told = [client.communicate()[0] for client in clients]
    spent = (peer.program.cpu() - before) / (LOAD.requests * ASKED)
    for said, output in zip(told, outputs):
        check(LOAD, peer, said, json.loads(output.read_text())["measurements"])
    print(f"round {turn + 1}  {len(peer.sites):6} sites {peer.label:32} {spent:10.1f} µs", flush=True)
    return spent
