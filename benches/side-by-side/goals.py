"""What the edge is held to, and whether the figures hold it."""

from dataclasses import dataclass

from rows import RATED

RIVALS = "nginx", "haproxy"


@dataclass(frozen=True)
class Goal:
    text: str
    most: float
    seen: float

    def holds(self):
        return self.seen <= self.most

    def line(self):
        return f"{self.text:76} seen {self.seen:8.2f}   {'holds' if self.holds() else 'missed'}"


def judge(result, edge):
    """Every goal for which there are figures."""
    goals = [*costs(result, edge), *latency(result, edge), *memory(result, edge), *growth(result, edge)]
    return [vars(goal) | {"edge": edge, "holds": goal.holds(), "line": goal.line()} for goal in goals]


def costs(result, edge):
    rows = {row["row"]: row["ratios"].get(edge, {}) for row in result["rows"]}
    limits = {"h1, 1 KiB": 0.9, "h2, 1 KiB": 0.9, "h1, 100 KiB": 0.7, "h2, 100 KiB": 0.7, "h1, 10 MiB": 0.5, "h2, 10 MiB": 0.5}
    for name, most in (limits | {"handshake, X25519": 0.6, "handshake, resumed": 0.7}).items():
        there = [rival for rival in RIVALS if rival in rows.get(name, {})]
        if there:
            seen = max(rows[name][rival]["median"] for rival in there)  # the better one is the harder one
            yield Goal(f"{name}: at most {most:.2f} × {best_of(there)}", most, seen)
    for name, most in {"h1, 1 KiB": 1.15, "h1, 100 KiB": 1.0}.items():
        if "relay" in rows.get(name, {}):
            yield Goal(f"{name}: at most {most:.2f} × the bare relay", most, rows[name]["relay"]["median"])


def best_of(there):
    return there[0] if len(there) == 1 else f"the better of {' and '.join(there)}"


def latency(result, edge):
    cells = next((row["peers"] for row in result["rows"] if row["row"] == RATED), {})
    there = [rival for rival in RIVALS if rival in cells]
    if there and edge in cells:
        seen = cells[edge]["p99.9_us"] / min(cells[rival]["p99.9_us"] for rival in there)
        yield Goal(f"p99.9 at half of saturation: at most 1.00 × {best_of(there)}", 1.0, seen)


def memory(result, edge):
    told = result["memory"].get(edge)
    if told:
        yield Goal("an idle TLS connection: at most 8 KiB", 8, told["connection_kib"])
        yield Goal("the same over HTTP/2: at most 12 KiB", 12, told["h2_connection_kib"])


def growth(result, edge):
    sites, crowd = result["sites"].get(edge), result["crowd"].get(edge)
    if sites:
        count, most = max(sites["sites"].items(), key=lambda pair: int(pair[0]))
        yield Goal(f"{count:,} sites: the first answer within 1 s", 1.0, most["start_s"])
        yield Goal(f"{count:,} sites: at most 120 MB of memory", 120, most["memory_kib"] * 1024 / 1e6)
        yield Goal(f"{count:,} sites: a request costs as with one, within 5 %", 1.05, sites["ratio"])
    if crowd:
        yield Goal(f"{crowd['held']:,} idle connections: a request costs as without, within 10 %", 1.10, crowd["ratio"])
