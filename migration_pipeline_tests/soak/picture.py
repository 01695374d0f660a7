"""The course of a soak, drawn: one strip for each figure, over time."""

from collections.abc import Sequence
from typing import NamedTuple

from migration_pipeline_tests.soak.samples import Sample

WIDTH, HEIGHT, LEFT, TOP, GAP = 700, 90, 60, 34, 44
COLOURS = ("#2a78c8", "#e08a1e", "#3f9c6b", "#c8382e", "#8250b8", "#66727f")


class Strip(NamedTuple):
    """A figure over time, in one line or several."""

    title: str
    lines: Sequence[Sequence[float]]


def drawn(samples: Sequence[Sample]) -> str:
    """As SVG; the thirds of the time that are compared are shaded."""
    strips = [
        Strip("Resident memory of each worker, MB", list(zip(*(s.memory for s in samples), strict=True))),
        Strip("Open descriptors of each worker", list(zip(*(s.descriptors for s in samples), strict=True))),
        Strip("Threads of each worker", list(zip(*(s.threads for s in samples), strict=True))),
        Strip("Connections to Postgres", [[sum(s.connections.values()) for s in samples]]),
        Strip(
            "The ledger, kilobytes for each file that it ever knew",
            [[1e3 * s.ledger / max(1, s.files) for s in samples]],
        ),
        Strip("Profiles that there are", [[s.profiles for s in samples]]),
    ]
    width, bottom = LEFT + WIDTH + 20, TOP + len(strips) * (HEIGHT + GAP)
    times = [sample.seconds / 60 for sample in samples]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}"',
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, strip in enumerate(strips):
        parts += _strip(strip, times, TOP + number * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>\n"])


def _strip(strip: Strip, times: Sequence[float], top: float) -> list[str]:
    # What begins with almost nothing, and is told for each file, begins far above all else.
    most = 1.1 * max(max(line[len(line) // 10 :]) for line in strip.lines) or 1.0
    end = times[-1] or 1.0
    shaded = [
        f'<rect x="{LEFT + WIDTH * n / 3:.0f}" y="{top}" width="{WIDTH / 3:.0f}" height="{HEIGHT}" fill="{fill}"/>'
        for n, fill in ((1, "#f4f6f8"), (2, "#e9edf2"))
    ]
    lines = [
        f'<polyline fill="none" stroke="{COLOURS[n % len(COLOURS)]}" stroke-width="1.5" points="'
        + " ".join(
            f"{LEFT + WIDTH * at / end:.1f},{top + HEIGHT * (1 - min(1, value / most)):.1f}"
            for at, value in zip(times, line, strict=True)
        )
        + '"/>'
        for n, line in enumerate(strip.lines)
    ]
    return [
        *shaded,
        f'<text x="{LEFT}" y="{top - 8}" fill="#1f2933">{strip.title}</text>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end" fill="#66727f">{most:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end" fill="#66727f">0</text>',
        f'<text x="{LEFT + WIDTH}" y="{top + HEIGHT + 15}" text-anchor="end" fill="#66727f">{end:.3g} min</text>',
        f'<line x1="{LEFT}" y1="{top + HEIGHT}" x2="{LEFT + WIDTH}" y2="{top + HEIGHT}" stroke="#9aa5b1"/>',
        *lines,
    ]
