"""The programs that are measured: how each is started, and what each has cost so far."""

import os
import re
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
PATIENCE = 60  # seconds that a program may take to listen

PROGRAMS = {
    "nginx": "usr/sbin/nginx",
    "haproxy": "usr/sbin/haproxy",
    "caddy": "usr/bin/caddy",
    "relay": "usr/sbin/haproxy",  # the floor: bytes handed on, neither TLS nor HTTP
}
TEMPLATES = {
    "nginx": "nginx.conf",
    "haproxy": "haproxy.cfg",
    "caddy": "Caddyfile",
    "relay": "relay.cfg",
    "vestibule": "vestibule.toml",
}
ACCESS = {  # what stands in a configuration for an access log, and for none
    "nginx": ("{log} combined buffer=64k flush=1s", "off"),
    "haproxy": ("log stdout format raw local0", ""),
    "caddy": ("log {\n\t\toutput file {log}\n\t}", ""),
    "relay": ("", ""),
    "vestibule": ("{log}", "off"),
}


def command(*words):
    """The command line that runs a program of the peers' folder with that folder's own libraries."""
    program = FOLDER / words[0]
    [loader] = FOLDER.glob("lib*/ld-linux-*.so.*")
    libraries = ":".join(str(path.parent) for path in FOLDER.glob("usr/lib/*/libc.so.6"))
    return [str(loader), "--library-path", libraries, str(program), *map(str, words[1:])]


def present():
    """The peers that the folder has."""
    return [name for name, program in PROGRAMS.items() if (FOLDER / program).exists()]


class Backend:
    """The one server behind every peer."""

    def __init__(self):
        self.port = free_port()
        config = fill("backend.conf", "backend.conf", backend=self.port)
        nginx = command("usr/sbin/nginx", "-p", WORK, "-c", config)
        self.program = Program("backend", nginx, LOAD_CPU, self.port)


class Echo:
    """The one WebSocket server behind every peer."""

    def __init__(self):
        self.port = free_port()
        self.program = Program("echo", [sys.executable, "-B", HERE / "echo.py", self.port], LOAD_CPU, self.port)


class Peer:
    """A proxy on a core of its own, with one worker; `edge` is a build of vestibule. It takes `most` connections."""

    def __init__(self, name, backend, echo, edge=None, log=True, label=None, folder="", sites=(), most=8192):
        self.name, self.label, self.kind = name, label or name, "vestibule" if edge else name
        self.ports = {"https": free_port(), "forward": free_port()}
        self.sites = sites
        access = ACCESS[self.kind][0 if log else 1].replace("{log}", str(WORK / f"{self.label}.access.log"))
        values = {"backend": backend.port, "echo": echo.port, "port": self.ports["https"], "access": access}
        values |= {"forward": self.ports["forward"], "name": self.label, "most": most}
        config = self.configure(Path(folder), values)
        self.program = Program(self.label, command_line(self.kind, config, edge), PROXY_CPU, self.ports["https"])

    def configure(self, folder, values):
        """Writes its configuration, and what that configuration reads besides."""
        template = folder / TEMPLATES[self.kind]
        for beside in (HERE / folder).glob(f"{template.name}.*"):
            fill(folder / beside.name, f"{self.label}.{beside.name}", self.sites, **values)
        return fill(template, f"{self.label}.{template.name}", self.sites, **values)


def command_line(kind, config, edge=None):
    words = {
        "nginx": ["-p", WORK, "-c", config],
        "haproxy": ["-db", "-f", config],
        "relay": ["-db", "-f", config],
        "caddy": ["run", "--adapter", "caddyfile", "--config", config],
        "vestibule": ["serve", "--config", config],
    }[kind]
    return [edge, *words] if edge else command(PROGRAMS[kind], *words)


class Program:
    """A child process tree, pinned to one core; its output goes to a file."""

    def __init__(self, name, line, cpu, port, host="127.0.0.1"):
        self.log = WORK / f"{name}.log"
        # Debian builds its Caddy with Go's defaults of years ago, without the post-quantum group.
        environment = os.environ | {"GOMAXPROCS": "1", "GODEBUG": "tlsmlkem=1", "HOME": str(WORK)}
        self.began = time.monotonic()
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
            time.sleep(0.002)
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

    def settled_memory(self):
        """The memory, once it stands still for half a second."""
        last = -1
        while last != (last := self.memory()):
            time.sleep(0.5)
        return last

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def fill(template, into, sites=(), **values):
    """Writes a configuration with its ports and folders filled in, and says where it is.

    What stands between the comments `each site` and `end` is written for every site."""
    text = (HERE / template).read_text()
    each = re.compile(r"^[ \t]*#+ each site\n(.*?)^[ \t]*#+ end\n", re.S | re.M)
    text = each.sub(lambda block: "".join(block[1].replace("@site@", site) for site in sites), text)
    for key, value in ({"dir": WORK, "peers": FOLDER} | values).items():
        text = text.replace(f"@{key}@", str(value))
    (WORK / into).write_text(text)
    return WORK / into


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]
