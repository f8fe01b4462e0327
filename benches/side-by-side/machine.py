"""Where the figures come from: the machine, and the versions of what was measured."""

import datetime
import os
import re
import subprocess

from peers import PROGRAMS, command

ASKED = {"nginx": "-v", "haproxy": "-v", "relay": "-v", "caddy": "version"}


def describe(names, edges):
    """A part of the result: date, machine, versions."""
    told = {name: version([edge, "--version"]) for name, edge in edges.items()}
    told |= {name: version(command(PROGRAMS[name], ASKED[name])) for name in names if name in PROGRAMS}
    told["h2load"] = version(command("usr/bin/h2load", "--version"))
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"date": date, "machine": machine(), "versions": told}


def machine():
    with open("/proc/cpuinfo") as file:
        pairs = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", file.read().split("\n\n")[0], re.M))
    cpu = {key: pairs[key] for key in ("model name", "cpu family", "model") if key in pairs}
    kernel = f"{os.uname().sysname} {os.uname().release} {os.uname().machine}"
    return {"cores": os.cpu_count(), "cpu": cpu, "kernel": kernel}


def version(line):
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().split("\n")[0]
