"""The programs that are measured: how each is started, and what each has cost so far."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "peers"
WORK = ROOT / "build" / "bench"
PROXY_CPU, LOAD_CPU = "0", "1"
PATIENCE = 10  # seconds that a program may take to listen


def command(*words):
    """The command line that runs a program of the peers' folder with that folder's own libraries."""
    program = FOLDER / words[0]
    [loader] = FOLDER.glob("lib*/ld-linux-*.so.*")
    libraries = ":".join(str(path.parent) for path in FOLDER.glob("usr/lib/*/libc.so.6"))
    return [str(loader), "--library-path", libraries, str(program), *map(str, words[1:])]


class Backend:
    """The one server behind every peer."""

    def __init__(self):
        self.port = free_port()
        config = fill("backend.conf", "backend.conf", backend=self.port)
        nginx = command("usr/sbin/nginx", "-p", WORK, "-c", config)
        self.program = Program("backend", nginx, LOAD_CPU, self.port)


class Peer:
    """A proxy on a core of its own, with one worker."""

    def __init__(self, name, backend, edge=None):
        self.name, self.port = name, free_port()
        kind = "vestibule" if edge else name
        template = HERE / TEMPLATES[kind]
        config = fill(template.name, f"{name}.{template.name}", backend=backend.port, port=self.port, name=name)
        program = edge or PROGRAMS[kind]
        words = {
            "nginx": ["-p", WORK, "-c", config],
            "haproxy": ["-db", "-f", config],
            "caddy": ["run", "--adapter", "caddyfile", "--config", config],
            "vestibule": ["serve", "--config", config],
        }[kind]
        line = [edge, *words] if edge else command(program, *words)
        self.program = Program(name, line, PROXY_CPU, self.port)


PROGRAMS = {"nginx": "usr/sbin/nginx", "haproxy": "usr/sbin/haproxy", "caddy": "usr/bin/caddy"}
TEMPLATES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "vestibule": "vestibule.toml"}


def present():
    """The peers that the folder has."""
    return [name for name, program in PROGRAMS.items() if (FOLDER / program).exists()]


class Program:
    """A child process tree, pinned to one core; its output goes to a file."""

    def __init__(self, name, line, cpu, port, host="127.0.0.1"):
        self.log = WORK / f"{name}.log"
        # Debian builds its Caddy with Go's defaults of years ago, without the post-quantum group.
        environment = os.environ | {"GOMAXPROCS": "1", "GODEBUG": "tlsmlkem=1", "HOME": str(WORK)}
        with open(self.log, "wb") as log:
            line = ["taskset", "-c", cpu, *map(str, line)]
            self.child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.wait_for(name, (host, port))

    def wait_for(self, name, address):
        end = time.monotonic() + PATIENCE
        while self.child.poll() is None and time.monotonic() < end:
            with socket.socket() as attempt:
                if attempt.connect_ex(address) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        sys.exit(f"bench: {name} did not come up. Its log, {self.log}, ends:\n{self.log.read_text()[-2000:]}")

    def processes(self):
        """Its process id, and those of all its children."""
        found = [self.child.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found.extend(map(int, (task / "children").read_text().split()))
        return found

    def cpu(self):
        """The time that its threads have spent on a processor, in microseconds."""
        spent = (path.read_text() for pid in self.processes() for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        return sum(int(text.split()[0]) for text in spent) / 1000

    def memory(self):
        """Its proportional set size, in KiB."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in self.processes())
        return sum(int(line.split()[1]) for lines in rollups for line in lines if line.startswith("Pss:"))

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def fill(template, into, **values):
    """Writes a peer's configuration with its ports and folders filled in, and says where it is."""
    text = (HERE / template).read_text()
    for key, value in ({"dir": WORK} | values).items():
        text = text.replace(f"@{key}@", str(value))
    (WORK / into).write_text(text)
    return WORK / into


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]
