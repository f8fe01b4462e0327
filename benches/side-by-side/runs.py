"""The rows of the table: every row, every peer, in turn, round by round."""

import sys
from contextlib import ExitStack

import report
from load import ask, connect, trusting
from material import RSA_HOST
from rows import RATED, ROWS, SATURATING, rated

SLOW = "caddy", "relay"  # the one is out of the others' reach, the other has no TLS: neither sets the rate
TRIES = 3


def measure(names, edges, rounds, parts, start):
    """A part of the result; `parts` of rows' names choose among them."""
    with ExitStack() as running:
        peers = {(name, True): start(name, running) for name in names}
        check_chains(peers)
        rate = half_of_saturation(peers) if chosen(RATED, parts) else 0
        rows = [row for row in [*ROWS, *([rated(rate)] if rate else [])] if chosen(row.name, parts)]
        if any(not row.log for row in rows):
            peers |= {(name, False): start(name, running, label=f"{name}-no-log", log=False) for name in names if name != "relay"}
        runs = [
            one(row, name, peers[name, row.log], turn)
            for turn in range(rounds)
            for row in rows
            for name in names
            if row.suits(name)
        ]
    return {"rate": rate, "rows": report.summary(runs, rows, names, edges), "runs": runs}


def chosen(name, parts):
    return not parts or any(part in name for part in parts)


def one(row, name, peer, turn):
    figures = row.client(row, peer)
    print(f"round {turn + 1}  {row.name:34} {name:12} {figures['cpu_us']:10.1f} µs", flush=True)
    return {"row": row.name, "peer": name, "round": turn} | figures


def check_chains(peers):
    """Who trusts the root alone, and the name, is answered: the intermediate came too."""
    for (name, _), peer in peers.items():
        if name != "relay":
            with connect(peer.ports["https"], trusting("rsa-root.pem"), RSA_HOST) as stream:
                ask(stream, RSA_HOST)


def half_of_saturation(peers):
    """Requests a second, in hundreds, at half of what the slowest can do here when it is asked for all it has."""
    there = [peer for (name, _), peer in peers.items() if name not in SLOW]
    if not there:
        sys.exit("bench: there is nobody whose saturation could set the rate")
    most = {peer.label: max(reached(peer) for _ in range(TRIES)) for peer in there}
    slowest = min(most, key=most.get)
    rate = int(most[slowest] / 2 // 100 * 100)
    print(f"saturation: {slowest} is the slowest at {most[slowest]:,.0f} requests a second; the rate is {rate:,}", flush=True)
    return rate


def reached(peer):
    return SATURATING.requests / SATURATING.client(SATURATING, peer)["seconds"]
