"""Addresses that change under load, in a network namespace with a name server of its own: `python moving.py EDGE CHANGES`."""

import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time

from client import People
from parts import HERE, WORK, Proxy, Server

NAME, PORT, PERIOD = "django.test", 8000, 5
PEERS = ("nginx", "vestibule")


def moving(edge, changes=12):
    """Two gunicorns behind one name; each 5 s another address takes the place of the older one, which is stopped as its name goes."""
    resolv = WORK / "moving.resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    script = f'ip link set lo up && mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    line = ["unshare", "-Urnm", "sh", "-c", script, "sh", sys.executable, "-B", HERE / "moving.py", edge, changes]
    told = subprocess.run(list(map(str, line)), stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def watch(name, edge, names, changes):
    """One proxy before them all: how many requests fail."""
    numbers = itertools.count(11)
    servers = [start(next(numbers)) for _ in range(2)]
    names.addresses = [server.host for server in servers]
    proxy = Proxy(name, f"{NAME}:{PORT}", edge if name == "vestibule" else None, names=True)
    try:
        crowd = People(proxy.port, 16, 10, posts=0.25)
        for _ in range(changes):
            begin = time.monotonic()
            servers.append(start(next(numbers)))
            names.addresses = [server.host for server in servers[1:]]
            servers.pop(0).stop()
            time.sleep(max(0, begin + PERIOD - time.monotonic()))
        crowd.stop()
    finally:
        for part in (proxy, *servers):
            part.stop()
    row = {"before Django": name, "changes": changes, "requests": sum(crowd.answers.values()), "failed": crowd.failed}
    slowest = max(crowd.took)
    return row | {"slowest, ms": round(slowest * 1000), "answers": {str(key): count for key, count in crowd.answers.items()}}


def start(number):
    options = ("--workers", 2, "--threads", 4, "--preload")
    return Server("gunicorn", *options, port=PORT, host=f"127.0.0.{number}")


class Names:
    """A name server that knows one name, whose addresses are believed for a second (RFC 1035)."""

    def __init__(self):
        self.addresses = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.answer_on, daemon=True).start()

    def answer_on(self):
        while True:
            asked, client = self.socket.recvfrom(4096)
            if len(asked) > 12:
                self.socket.sendto(self.answer(asked), client)

    def answer(self, asked):
        end = asked.index(0, 12) + 5
        labels, kind = asked[12 : end - 4], struct.unpack("!H", asked[end - 4 : end - 2])[0]
        known = labels.lower() == b"".join(bytes([len(part)]) + part.encode() for part in NAME.split(".")) + b"\0"
        found = self.addresses if known and kind == 1 else []
        head = asked[:2] + struct.pack("!5H", 0x8580 if known else 0x8583, 1, len(found), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4)
        return head + asked[12:end] + b"".join(record + socket.inet_aton(address) for address in found)


if __name__ == "__main__":
    own = Names()
    print(json.dumps([watch(name, sys.argv[1], own, int(sys.argv[2])) for name in PEERS]))
