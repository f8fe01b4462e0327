"""Writes a container's root to standard output, as a tar: the edge (/vestibule), this Python (/python), the packages of
the virtual environment (/packages), the Django site (/django), and every library that they load."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages"}


def main():
    edge, python = Path(sys.argv[1]), Path(sys.executable).resolve()
    standard = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for folder in ("tmp", "etc", "work"):
            add_folder(tar, folder)
        tar.add(edge, "vestibule")
        tar.add(python, str(python))
        add_link(tar, "python", python)
        tar.add(standard, str(standard), filter=lambda entry: keep(entry))
        tar.add(packages, "packages", filter=lambda entry: None if entry.name.endswith("__pycache__") else entry)
        tar.add(ROOT / "tests" / "django", "django")
        loaded = [edge, python, *standard.glob("lib-dynload/*.so"), *packages.rglob("*.so")]
        for library in sorted(libraries(loaded)):
            tar.add(os.path.realpath(library), library)


def keep(entry):
    return None if LEFT_OUT & set(Path(entry.name).parts[-1:]) else entry


def libraries(programs):
    """Every shared library that the dynamic linker would load for them, the linker included."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True).stdout
    return {match for match in re.findall(r"(/\S+) \(0x", told)}


def add_folder(tar, name):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(entry)


def add_link(tar, name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, str(target)
    tar.addfile(entry)


if __name__ == "__main__":
    main()
