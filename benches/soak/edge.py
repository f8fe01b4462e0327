"""The edge in the soak: started from a link that may lead elsewhere, reloaded, upgraded, and looked at from outside."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

NAME = "app.localhost"
PATIENCE = 60  # seconds that anything may take


class Edge:
    """`grace` is in seconds."""

    def __init__(self, program, folder, upstream, grace):
        self.real, self.folder, self.upstream, self.grace = program, folder, upstream, grace
        self.program, self.file, self.log = folder / "program", folder / "edge.toml", folder / "log"
        self.reloads = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.configure()
        self.restore()
        with open(self.log, "wb") as log:
            arguments = [self.program, "serve", "--config", self.file]
            self.first = subprocess.Popen(arguments, stderr=log, stdout=log, cwd=folder)
        self.pid = self.heard(0, lambda line: line["message"] == "ready" and line["pid"])
        self.ca = folder / "store/internal/root.pem"

    def configure(self):
        self.file.write_text(f"""
[ports]
"127.0.0.1:{self.port}" = {{ serve = "https", allow = ["public"] }}
[[site]]
domains = ["{NAME}"]
upstream = "127.0.0.1:{self.upstream}"
certificate = "internal"
  [[site.route]]
  path = "= /which"
  redirect = {{ to = "/{self.reloads}", status = 307 }}
[store]
path = "{self.folder}/store"
[admin]
socket = "{self.folder}/admin.sock"
[log]
access = "off"
[process]
grace = "{self.grace}s"
""")

    def reload(self):
        """Another route each time, and every third time a file that is wrong, which must be refused."""
        self.reloads += 1
        self.configure()
        wrong = self.reloads % 3 == 0
        if wrong:
            self.file.write_text(self.file.read_text().replace("upstream =", "upstraem ="))
        mark = self.mark()
        os.kill(self.pid, signal.SIGHUP)
        taken = self.heard(mark, lambda line: {"reloaded": "yes"}.get(line["message"]) or (line["message"].startswith("reload refused") and "no"))
        if wrong:
            self.reloads += 1
            self.configure()
        if (taken == "no") != wrong:
            raise RuntimeError(f"a {'wrong' if wrong else 'right'} file was {'taken' if taken == 'yes' else 'refused'}")

    def upgrade(self):
        """Into a process of the real program."""
        before, outcome = self.pid, self.usr2()
        if outcome[0] == "failed" or outcome[1] == before:
            raise RuntimeError(f"the upgrade failed: {outcome[1]}")
        self.pid = outcome[1]

    def upgrade_that_fails(self, how):
        """Into a program that crashes, hangs, or is another machine's."""
        new = self.folder / "new"
        new.write_bytes({"crash": b"#!/bin/sh\nkill -SEGV $$\n", "hang": b"#!/bin/sh\nexec sleep 1000\n",
                         "other machine": OTHER_MACHINE}[how])
        new.chmod(0o755)
        new.rename(self.program)
        outcome = self.usr2()
        self.restore()
        if outcome[0] != "failed":
            raise RuntimeError(f"an upgrade to a program that should fail ({how}) was taken")

    def usr2(self):
        mark = self.mark()
        os.kill(self.pid, signal.SIGUSR2)

        def outcome(line):
            if line["message"] == "ready":
                return ("ready", line["pid"])
            return line["message"].startswith("upgrade failed") and ("failed", line.get("why"))

        return self.heard(mark, outcome)

    def restore(self):
        new = self.folder / "new"
        new.symlink_to(self.real)
        new.rename(self.program)

    def mark(self):
        return self.log.stat().st_size

    def heard(self, mark, pick):
        """The first thing that `pick` finds in the log behind the mark."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with open(self.log, "rb") as log:
                log.seek(mark)
                for line in log.read().split(b"\n")[:-1]:
                    if line.startswith(b"{") and (found := pick(json.loads(line))):
                        return found
            time.sleep(0.02)
        raise TimeoutError(self.log.read_text()[-2000:])

    def processes(self):
        """Every process of the edge's that lives, those that finish what they have among them."""
        return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and stands_in(one, self.folder)]

    def memory(self):
        """KiB that are its own: what it shares with its file counts for nobody."""
        return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()).group(1))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def panics(self):
        return self.log.read_bytes().count(b"panicked")

    def end(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + self.grace + 10
        while self.processes() and time.monotonic() < limit:
            self.first.poll()
            time.sleep(0.05)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.first.wait()


def stands_in(process, folder):
    try:
        return Path(os.readlink(process / "cwd")) == folder
    except OSError:
        return False


# The head of an ELF file for 64-bit big-endian IBM Z (e_machine 22), which no machine takes for its own where this is tried.
OTHER_MACHINE = b"\x7fELF\x02\x02\x01" + bytes(9) + struct.pack(">HHIQQQIHHHHHH", 2, 22, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0) + bytes(64)
