"""Instructions a request, as valgrind's callgrind counts them: no quiet machine is needed to see that one more is spent.

What the kernel does is not in it. See README.md here."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "side-by-side"))

import material  # noqa: E402
from peers import WORK, Backend, command, fill, free_port  # noqa: E402

BASELINE = HERE / "baseline.json"
SLACK = 1.03  # runs of one build differ by less than 1 %
ONE, TEN = ["--h1", "-c1"], ["-c1", "-m10"]
ROWS = {
    "h1, 1 KiB": ("1k", 2000, ONE),
    "h2, 1 KiB, 10 streams": ("1k", 2000, TEN),
    "h1, 100 KiB": ("100k", 500, ONE),
    "h2, 100 KiB, 10 streams": ("100k", 500, TEN),
    "handshake and one request, X25519": ("1k", 100, ["--h1", "-c100", "-r20", "--groups=X25519"]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edge", help="the edge, built with the release profile")
    parser.add_argument("--keep", action="store_true", help="write what is counted into baseline.json")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    material.make()
    counted = count(asked.edge)
    if asked.keep:
        BASELINE.write_text(json.dumps(counted, indent=1) + "\n")
    known = json.loads(BASELINE.read_text())
    for name, spent in counted.items():
        print(f"{name:36} {spent:10,}   baseline {known[name]:10,}   ×{spent / known[name]:.3f}")
    more = [name for name, spent in counted.items() if spent > known[name] * SLACK]
    if more:
        sys.exit(f"instructions: more than the baseline: {'; '.join(more)}. If that is worth it: --keep")


def count(edge):
    """Every row's instructions a request."""
    backend, port, out = Backend(), free_port(), WORK / "callgrind.out"
    config = fill(HERE / "vestibule.toml", "instructions.toml", backend=backend.port, port=port)
    for old in WORK.glob("callgrind.out*"):
        old.unlink()
    line = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", edge, "serve", "--config", config]
    with open(WORK / "instructions.log", "wb") as log:
        # The stable pages of an allocator that gives nothing back while it is counted.
        program = subprocess.Popen(line, stdout=log, stderr=log, env=os.environ | {"MIMALLOC_PURGE_DELAY": "-1"})
    try:
        wait_for(program, port)
        return {name: row(program, port, out, turn, *load) for turn, (name, load) in enumerate(ROWS.items(), 1)}
    finally:
        program.terminate()
        program.wait()
        backend.program.stop()


def row(program, port, out, turn, path, requests, options):
    """One row: a tenth of it first, which is not counted."""
    load(port, path, max(requests // 10, 10), [option for option in options if not option.startswith("-r")])
    control(program, "--zero")
    load(port, path, requests, options)
    control(program, f"--dump=row-{turn}")
    [dump] = [file for file in out.parent.glob(f"{out.name}.*") if f"row-{turn}" in file.read_text(errors="replace")]
    return round(int(re.search(r"^(?:totals|summary): (\d+)", dump.read_text(errors="replace"), re.M)[1]) / requests)


def load(port, path, requests, options):
    options = [f"-c{min(requests, int(option[2:]))}" if option.startswith("-c") else option for option in options]
    target = [f"--connect-to=127.0.0.1:{port}", f"https://{material.HOST}:{port}/{path}"]
    cipher = "--tls13-ciphers=TLS_AES_128_GCM_SHA256"
    told = subprocess.run(
        command("usr/bin/h2load", f"-n{requests}", *options, cipher, *target), capture_output=True, text=True
    ).stdout
    if f"{requests} succeeded" not in told:
        sys.exit(f"instructions: not every request was answered. h2load says:\n{told[-3000:]}")


def control(program, order):
    subprocess.run(["callgrind_control", order, str(program.pid)], check=True, capture_output=True)


def wait_for(program, port):
    import socket

    end = time.monotonic() + 60
    while program.poll() is None and time.monotonic() < end:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"instructions: the edge did not come up; see {WORK / 'instructions.log'}")


if __name__ == "__main__":
    main()
