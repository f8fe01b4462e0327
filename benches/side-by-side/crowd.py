"""A request's cost while many TLS connections are held that ask for nothing, beside a process that holds none."""

import resource
import socket
import statistics
import sys
from contextlib import ExitStack

from load import ask, connect, h2load, trusting
from rows import SATURATING

WANTED = 20_000
SPARE = 500  # descriptors that a proxy needs besides: the load's, the upstream's
MOST = 32_768  # what their configurations say, the upstream's included; they hold memory for each
WITHOUT = "caddy", "relay"


def size():
    """As many as are wanted, or as this machine lets one process have."""
    return min(WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE)


def measure(names, rounds, start):
    return {name: beside(name, rounds, start) for name in names if name not in WITHOUT}


def beside(name, rounds, start):
    """Both processes are asked in turn."""
    with ExitStack() as running:
        alone = start(name, running, label=f"{name}-alone", most=MOST)
        crowded = start(name, running, label=f"{name}-crowded", most=MOST)
        base = crowded.program.settled_memory()
        held = hold(crowded, running)
        added = (crowded.program.settled_memory() - base) / len(held)
        costs = [(cost(alone, turn), cost(crowded, turn)) for turn in range(rounds)]
        still_open(held, name)
    without, beside_many = (statistics.median(side) for side in zip(*costs))
    ratio = statistics.median(many / none for none, many in costs)
    told = {"held": len(held), "connection_kib": added, "cpu_us": {"alone": without, "crowded": beside_many}}
    return told | {"ratio": ratio, "rounds": costs}


def cost(peer, turn):
    spent = h2load(SATURATING, peer)["cpu_us"]
    print(f"round {turn + 1}  {peer.label:40} {spent:10.1f} µs", flush=True)
    return spent


def hold(peer, running):
    """Each connection has had one answer. The client forgets its TLS and keeps the socket, or it would need a gigabyte."""
    context, held = trusting(), []
    for number in range(size()):
        source = f"127.0.0.{2 + number % 8}", 0  # one address would run out of ports
        with connect(peer.ports["https"], context, source=source) as stream:
            ask(stream)
            held.append(running.enter_context(socket.socket(fileno=stream.detach())))
    print(f"{len(held)} idle connections held at {peer.label}", flush=True)
    return held


def still_open(held, name):
    for stream in held:
        try:
            ended = stream.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            ended = False
        if ended:
            sys.exit(f"bench: {name} closed connections that were to be held")
