"""The plot of the table: a group of bars for each row, whose longest fills the width, with the spread of the rounds."""

from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP = 560, 230, 130, 13, 12
COLOURS = {"nginx": "#57606a", "haproxy": "#b35900", "caddy": "#1b7c83", "relay": "#afb8c1"}
EDGES = "#1f6feb", "#8250df", "#cf222e"


def draw(result):
    """An SVG of the rows of a result. Every scale begins at nought, and is its row's own."""
    colours = COLOURS | {edge: EDGES[at % len(EDGES)] for at, edge in enumerate(result["edges"])}
    parts, top = [legend(result["peers"], colours)], 70
    for row in result["rows"]:
        parts.append(group(row, colours, top))
        top += len(row["peers"]) * BAR + GAP
    title = f"Processor time of the proxy for one request, µs: median of {result['rounds']} rounds, least to most"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {top + 10}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="24" font-size="15">{title}</text>{"".join(parts)}</svg>\n'
    )


def legend(names, colours):
    parts = []
    for at, name in enumerate(names):
        x = LEFT + at * 110
        parts.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 18}" y="48">{escape(name)}</text>')
    return "".join(parts)


def group(row, colours, top):
    scale = WIDTH / max(cell["most"] for cell in row["peers"].values())
    parts = [f'<text x="{LEFT - 8}" y="{top + BAR * len(row["peers"]) / 2 + 4}" text-anchor="end">{escape(row["row"])}</text>']
    for at, (name, cell) in enumerate(row["peers"].items()):
        parts.append(bar(cell, scale, colours[name], top + at * BAR))
    return "".join(parts)


def bar(cell, scale, colour, top):
    middle, least, most = top + (BAR - 2) / 2, LEFT + cell["least"] * scale, LEFT + cell["most"] * scale
    return (
        f'<rect x="{LEFT}" y="{top}" width="{cell["cpu_us"] * scale:.1f}" height="{BAR - 2}" fill="{colour}"/>'
        f'<path d="M{least:.1f} {middle}H{most:.1f}" stroke="black"/>'
        f'<text x="{most + 6:.1f}" y="{middle + 4}" font-size="11">{cell["cpu_us"]:.1f}</text>'
    )
