"""Years in minutes: mixed traffic at a steady rate while the edge is reloaded and upgraded, well and badly; its memory and
descriptors are sampled and drawn. `make soak` runs it, see README.md here. Ends with 1 where a request failed, a WebSocket ended too
soon, or something grew."""

import argparse
import multiprocessing
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import clients
import upstream
from draw import draw
from edge import Edge

HEADS = ["seconds", "requests/s", "KiB", "descriptors", "processes", "upgrades"]
EVERY = 0.5  # seconds between two samples
WARM = 10  # seconds that do not count for growth


def main():
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    behind = multiprocessing.Process(target=upstream.serve, args=(listening,), daemon=True)
    behind.start()
    with tempfile.TemporaryDirectory(prefix="vestibule-soak-") as folder:
        edge = Edge(asked.edge.resolve(), Path(folder).resolve(), listening.getsockname()[1], asked.grace)
        try:
            seen = Soak(edge, asked).run()
        finally:
            edge.end()
            behind.terminate()
            behind.join()
    return seen.tell(asked.out)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edge", type=Path)
    parser.add_argument("out", type=Path, help="where soak.tsv and soak.svg are written")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--rate", type=float, default=2000, help="requests a second")
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--failing", type=int, default=10, help="upgrades to a program that crashes, hangs, or is another machine's")
    parser.add_argument("--websockets", type=int, default=20)
    parser.add_argument("--grace", type=int, default=5, help="seconds")
    return parser.parse_args()


class Soak:
    """The traffic, the events, and what is seen of them."""

    def __init__(self, edge, asked):
        self.edge, self.asked = edge, asked
        self.stop = multiprocessing.Event()
        self.upgrades = multiprocessing.Array("d", 2 * asked.upgrades + 2, lock=False)
        self.failures, self.samples, self.done = multiprocessing.Queue(), [], {}
        self.begun = time.monotonic()
        shares = self.traffic()
        self.counts = [multiprocessing.Array("Q", len(clients.Run.KINDS), lock=False) for _ in shares]
        shared = (edge.port, edge.ca, asked.grace, self.stop, self.upgrades)
        self.processes = [multiprocessing.Process(target=clients.process, args=(share, *shared, counts, self.failures))
                          for share, counts in zip(shares, self.counts)]

    def traffic(self):
        """Who asks how often, by process: (client, rate, arguments)."""
        rate, at_once = self.asked.rate, 10
        h1 = [(clients.keep_alive, rate * 0.56 / 8, ("h1 requests", "GET", b""))] * 8
        h2 = [(clients.over_h2, rate * 0.36 / 4 / at_once, (at_once,))] * 4
        rest = [(clients.keep_alive, rate * 0.05 / 2, ("uploads", "POST", b"u" * 100_000))] * 2
        rest += [(clients.new_connections, rate * 0.03 / 2, ())] * 2
        return [h1, h2, rest, [(clients.websockets, self.asked.websockets * 5, (self.asked.websockets,))]]

    def run(self):
        for process in self.processes:
            process.start()
        watcher = threading.Thread(target=self.watch)
        watcher.start()
        try:
            self.events(time.monotonic(), self.asked.minutes * 60)
        finally:
            self.stop.set()
            watcher.join()
            self.failed = self.heard()
            for process in self.processes:
                process.join()
            self.panics = self.edge.panics()
        return self

    def heard(self):
        """Every failure, while the clients come to their end."""
        failed = []
        while any(process.is_alive() for process in self.processes) or not self.failures.empty():
            try:
                failed.append(self.failures.get(timeout=0.2))
            except multiprocessing.queues.Empty:
                pass
        return failed

    def events(self, start, lasts):
        """Reloads and upgrades, in an order that is the same each time, spread over the time."""
        hows = ["crash", "hang", "other machine"]
        events = [("reload", None)] * self.asked.reloads + [("upgrade", None)] * self.asked.upgrades
        events += [("failing upgrade", hows[at % 3]) for at in range(self.asked.failing)]
        random.Random(6).shuffle(events)
        for at, (event, how) in enumerate(events):
            time.sleep(max(0, start + lasts * (at + 1) / (len(events) + 1) - time.monotonic()))
            if event == "reload":
                self.edge.reload()
            elif event == "upgrade":
                self.upgrade()
            else:
                self.edge.upgrade_that_fails(how)
            self.done[event] = self.done.get(event, 0) + 1
        time.sleep(max(0, start + lasts - time.monotonic()))

    def upgrade(self):
        at = 2 * self.done.get("upgrade", 0)
        self.upgrades[at] = time.time()
        self.edge.upgrade()
        self.upgrades[at + 1] = time.time()

    def watch(self):
        last, moment = self.requests(), time.monotonic()
        while not self.stop.wait(EVERY):
            try:
                seen = (self.edge.memory(), self.edge.descriptors(), len(self.edge.processes()))
            except OSError:
                continue  # it has just left
            now, total = time.monotonic(), self.requests()
            rate, (last, moment) = (total - last) / (now - moment), (total, now)
            self.samples.append((round(now - self.begun, 1), round(rate), *seen, self.done.get("upgrade", 0)))

    def requests(self):
        return sum(sum(counts[:4]) for counts in self.counts)

    def tell(self, out):
        lines = ["\t".join(HEADS)] + ["\t".join(map(str, sample)) for sample in self.samples]
        (out / "soak.tsv").write_text("\n".join(lines) + "\n")
        (out / "soak.svg").write_text(draw(self.samples))
        for at, kind in enumerate(clients.Run.KINDS):
            print(f"{sum(counts[at] for counts in self.counts):>12,}  {kind}")
        for event, count in sorted(self.done.items()):
            print(f"{count:>12,}  {event}s")
        seconds = self.samples[-1][0] if self.samples else 0
        print(f"{self.requests() / max(seconds, 1):>12,.0f}  requests a second, over {seconds:.0f} s")
        grown = [self.growth(2, "KiB of memory", 8192), self.growth(3, "descriptors", 40)]
        print(f"{len(self.failed):>12,}  failed", *self.failed[:20], sep="\n")
        print(f"{self.panics:>12,}  panics\n{'':>12}  drawn in {os.path.relpath(out)}/soak.svg")
        return 1 if self.failed or self.panics or any(grown) else 0

    def growth(self, column, what, slack):
        """Says what the second quarter and the last were like; whether the last is more than a third above it."""
        values = [sample[column] for sample in self.samples if sample[0] > WARM]
        if len(values) < 8:
            return False
        quarter = len(values) // 4
        early, late = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
        print(f"{late:>12,.0f}  {what} in the last quarter; {early:,.0f} in the second, {max(values):,} at most")
        return late > early * 1.33 + slack


if __name__ == "__main__":
    sys.exit(main())
