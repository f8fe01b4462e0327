"""Medians, spreads and ratios of the runs, and the table that shows them."""

import statistics

LATENCIES = {"p50_us": "p50", "p99_us": "p99", "p99.9_us": "p99.9"}


def summary(runs, rows, names, edges):
    """A row's figures; ratios are made within a round, between each edge and each other, and then their median."""
    return [summary_of(row, [run for run in runs if run["row"] == row.name], names, edges) for row in rows]


def summary_of(row, runs, names, edges):
    of = {name: [run for run in runs if run["peer"] == name] for name in names if row.suits(name)}
    cells = {name: cell(of[name]) for name in of}
    ratios = {edge: {name: ratio(of[edge], of[name]) for name in of if name != edge} for edge in edges if edge in of}
    return {"row": row.name, "requests": row.requests, "peers": cells, "ratios": ratios}


def cell(runs):
    costs = [run["cpu_us"] for run in runs]
    told = {"cpu_us": statistics.median(costs), "least": min(costs), "most": max(costs)}
    return told | {key: statistics.median(run[key] for run in runs) for key in LATENCIES if key in runs[0]}


def ratio(ours, theirs):
    each = [mine["cpu_us"] / other["cpu_us"] for mine, other in zip(ours, theirs)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def table(result):
    """Everything that was measured, in plain text."""
    parts = [head(result), costs(result), memory(result), sites(result), crowd(result), goals(result)]
    return "\n\n".join(part for part in parts if part)


def head(result):
    machine, cpu = result["machine"], result["machine"]["cpu"]
    family = f"family {cpu.get('cpu family')}, model {cpu.get('model')}"
    told = f"{machine['cores']} cores of {cpu.get('model name', 'unknown')} ({family})"
    versions = "\n".join(f"  {name}: {version}" for name, version in result["versions"].items())
    return f"{result['date']}, {told}, {machine['kernel']}, {result['rounds']} rounds\n{versions}"


def costs(result):
    if not result["rows"]:
        return ""
    names, edges = result["peers"], result["edges"]
    compared = [(edge, name) for edge in edges for name in names if name != edge]
    titles = [f"{edge} ÷ {name}" if len(edges) > 1 else f"÷ {name}" for edge, name in compared]
    lines = ["CPU µs a request: median (least–most); ratios are medians of a round's own"]
    wide = 2 + max(map(len, titles), default=10)
    lines.append(line("", names, titles, wide))
    for row in result["rows"]:
        ratios = [row["ratios"].get(edge, {}).get(name) for edge, name in compared]
        told = (f"{one['median']:.2f}" if one else "–" for one in ratios)
        lines.append(line(row["row"], (cost(row["peers"].get(name)) for name in names), told, wide))
        lines.extend(latencies(row, names))
    return "\n".join(lines)


def cost(cell):
    return f"{figure(cell['cpu_us'])} ({figure(cell['least'])}–{figure(cell['most'])})" if cell else "–"


def figure(micros):
    return f"{micros:.1f}" if micros < 1000 else f"{micros:.0f}"


def latencies(row, names):
    for key, label in LATENCIES.items():
        if any(key in cell for cell in row["peers"].values()):
            told = (row["peers"].get(name, {}).get(key) for name in names)
            yield line(f"  latency {label}, µs", ("–" if one is None else f"{one:.0f}" for one in told))


def memory(result):
    labels = {"base_kib": "memory at rest, KiB", "connection_kib": "an idle TLS connection, KiB"}
    labels["h2_connection_kib"] = "the same over HTTP/2, KiB"
    return columns(result["memory"], {label: lambda told, key=key: f"{told[key]:.1f}" for key, label in labels.items()})


def sites(result):
    told = result["sites"]
    rows = {}
    for count in next(iter(told.values()))["sites"] if told else ():
        named = f"{int(count):,} {'site' if int(count) == 1 else 'sites'}"
        rows[f"{named}: first answer, s"] = lambda of, at=count: f"{of['sites'][at]['start_s']:.3f}"
        rows[f"{named}: memory, MB"] = lambda of, at=count: f"{of['sites'][at]['memory_kib'] * 1024 / 1e6:.1f}"
        rows[f"{named}: CPU µs a request"] = lambda of, at=count: f"{of['cpu_us'][at]:.1f}"
    rows["a request with most ÷ with one"] = lambda of: f"{of['ratio']:.3f}"
    return columns(told, rows)


def crowd(result):
    rows = {
        "idle connections held": lambda of: f"{of['held']:,}",
        "each of them, KiB": lambda of: f"{of['connection_kib']:.1f}",
        "CPU µs a request without them": lambda of: f"{of['cpu_us']['alone']:.1f}",
        "CPU µs a request beside them": lambda of: f"{of['cpu_us']['crowded']:.1f}",
        "beside them ÷ without": lambda of: f"{of['ratio']:.3f}",
    }
    return columns(result["crowd"], rows)


def columns(told, rows):
    """A column for each who was measured."""
    if not told:
        return ""
    lines = [line("", told)]
    return "\n".join(lines + [line(label, (shown(of) for of in told.values())) for label, shown in rows.items()])


def goals(result):
    several = len(result["edges"]) > 1
    return "\n".join(f"{goal['edge'] + ': ' if several else ''}goal {goal['line']}" for goal in result["goals"])


def line(name, cells, narrow=(), wide=12):
    return f"{name:34}" + "".join(f"{cell:>24}" for cell in cells) + "".join(f"{cell:>{wide}}" for cell in narrow)
