"""The edge before a real Django, beside nginx: what slow clients, retiring workers and deploys cost. See README.md here."""

import argparse
import json
import os
import resource
import time

import runs
from moving import moving
from parts import ROOT, WORK, make_certificate

RUNS = (runs.shield, runs.retire, runs.restart, moving, runs.events, runs.transfer)


def main():
    asked = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    make_certificate()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sizes = {runs.shield: {"seconds": asked.seconds}, runs.retire: {"requests": asked.requests}}
    sizes |= {runs.restart: {"times": asked.restarts}, moving: {"changes": asked.changes}}
    result = {}
    for run in RUNS:
        if asked.only and run.__name__ not in asked.only:
            continue
        begin = time.monotonic()
        result[run.__name__] = run(asked.edge, **sizes.get(run, {}))
        print(f"\n{run.__doc__}\n\n{table(result[run.__name__])}\n({time.monotonic() - begin:.0f} s)", flush=True)
    into = WORK / "django.json"
    into.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nThe same as JSON: {into.relative_to(ROOT)}. The machine has {os.cpu_count()} processors.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", required=True, help="the edge's binary")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(run.__name__ for run in RUNS))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--changes", type=int, default=12, help="of addresses, one each five seconds")
    parser.add_argument("--seconds", type=float, default=30, help="how long people are watched beside slow senders")
    return parser.parse_args()


def table(rows):
    heads = list(rows[0])
    cells = [heads, *([str(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


if __name__ == "__main__":
    main()
