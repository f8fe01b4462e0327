"""The Autobahn test suite's client before a WebSocket server, and before the edge with the same server behind it.

Every case is to end behind the edge as it ends without it. Prints the cases by chapter, names those that differ, and exits
with 1 where one does.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "side-by-side"), str(HERE.parent / "django")]

from parts import CPUS, HOST, VENV, Proxy, make_certificate  # noqa: E402
from peers import ROOT, WORK, Program, free_port  # noqa: E402

# Of every group some: whole chapters where cases are quick; of the long ones, large messages (9) and a thousand compressed
# messages each (12 and 13), the first of each group, and a few behind it.
QUICK = [f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 10)]
LARGE = [f"9.{group}.1" for group in range(1, 9)] + ["9.1.2", "9.2.2"]
COMPRESSED = [f"12.{group}.1" for group in range(1, 6)] + [f"13.{group}.1" for group in range(1, 8)] + ["12.1.6", "13.1.6"]
USUAL = [*QUICK, *LARGE, *COMPRESSED]

SUITE = ROOT / "build" / "autobahn"
# What the suite calls its verdicts: those about closing are told apart, for a proxy could well spoil that alone.
VERDICTS = ("behavior", "behaviorClose")
# Whether a server echoes what came just before a broken frame or fails at once is a race of its own: both are right.
SAME = {"NON-STRICT": "OK"}


def main():
    asked = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    make_certificate()
    with ExitStack() as running:
        echo, relayed = free_port(), free_port()
        start("echo", running, echo, VENV / "python", HERE / "echo.py", echo)
        edge = Proxy("autobahn", echo, asked.edge)
        running.callback(edge.stop)
        start("relay", running, relayed, VENV / "python", HERE / "relay.py", relayed, edge.port, WORK / "cert.pem", HOST)
        told = {name: cases(name, port, asked) for name, port in (("direct", echo), ("edge", relayed))}
    wrong = compare(told["direct"], told["edge"])
    sys.exit(1 if wrong else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", required=True, help="the edge's binary")
    parser.add_argument("--cases", type=listed, default=USUAL, help="as the suite names them: 1.*,7.1.1; or all")
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], help="cases to leave out")
    return parser.parse_args()


def listed(text):
    return ["*"] if text == "all" else text.split(",")


def start(name, running, port, *line):
    program = Program(f"autobahn.{name}", line, CPUS, port)
    running.callback(program.stop)


def cases(name, port, asked):
    """Runs the suite's client; says how each case ended."""
    url = f"ws://{HOST}:{port}"
    spec = {"outdir": f"/reports/{name}", "servers": [{"agent": name, "url": url}]}
    spec |= {"cases": asked.cases, "exclude-cases": asked.without, "exclude-agent-cases": {}}
    (SUITE / "spec.json").write_text(json.dumps(spec))
    begin = time.monotonic()
    line = ["chroot", SUITE, "wstest", "-m", "fuzzingclient", "-s", "/spec.json"]
    ended = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    report = SUITE / "reports" / name / "index.json"
    if ended.returncode or not report.exists():
        sys.exit(f"autobahn: the suite failed:\n{ended.stdout[-1000:]}{ended.stderr[-2000:]}")
    print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    return json.loads(report.read_text())[name]


def compare(direct, edge):
    """The cases that end otherwise; prints a line a chapter."""
    chapters, wrong = defaultdict(Counter), []
    for case, verdicts in sorted(direct.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])]):
        same = case in edge and all(verdict(verdicts, key) == verdict(edge[case], key) for key in VERDICTS)
        chapters[int(case.split(".")[0])].update([verdicts["behavior"], "cases", "same" if same else "other"])
        if not same:
            wrong.append(f"{case}: {shown(verdicts)} without the edge, {shown(edge.get(case, {}))} behind it")
    for chapter, counts in chapters.items():
        verdicts = ", ".join(f"{count} {name.lower()}" for name, count in counts.items() if name[0].isupper())
        print(f"chapter {chapter:2}: {counts['cases']:3} cases, {counts['same']:3} the same ({verdicts})")
    print("\n".join(wrong) or f"all {len(direct)} cases end behind the edge as without it")
    return wrong


def verdict(verdicts, key):
    return SAME.get(verdicts[key], verdicts[key])


def shown(verdicts):
    return "/".join(verdicts.get(key, "not run") for key in VERDICTS)


if __name__ == "__main__":
    main()
