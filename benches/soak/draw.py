"""The soak's plot: one strip for each thing that is to be flat, over the same time, with a mark for each upgrade."""

WIDTH, HEIGHT, GAP, LEFT = 960, 130, 40, 20
STRIPS = [(1, "#57606a", "requests a second"), (2, "#1f6feb", "KiB of memory of the process that serves"),
          (3, "#b35900", "descriptors of the process that serves"), (4, "#8250df", "processes")]


def draw(samples):
    """An SVG of samples: seconds first, the number of upgrades last. Every scale begins at nought."""
    last = samples[-1][0] if samples else 1
    parts = [strip(samples, last, at, *one) for at, one in enumerate(STRIPS)]
    size = f"0 0 {WIDTH + 2 * LEFT} {len(STRIPS) * (HEIGHT + GAP) + 20}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="13">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n')


def strip(samples, last, at, column, colour, name):
    top = 30 + at * (HEIGHT + GAP)
    most = max((sample[column] for sample in samples), default=0) or 1
    x = lambda sample: LEFT + sample[0] / last * WIDTH
    points = " ".join(f"{x(sample):.1f},{top + HEIGHT * (1 - sample[column] / most):.1f}" for sample in samples)
    upgrades = (after for before, after in zip(samples, samples[1:]) if before[-1] != after[-1])
    marks = "".join(f"M{x(sample):.1f} {top}v{HEIGHT}" for sample in upgrades)
    return (f'<path d="{marks}" stroke="#d0d7de"/><path d="M{LEFT} {top + HEIGHT}h{WIDTH}" stroke="#57606a"/>'
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
            f'<text x="{LEFT}" y="{top - 6}" fill="{colour}">{name}, at most {most:,}; upgrades in grey</text>')
