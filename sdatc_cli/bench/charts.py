"""Quality against CRF as inline SVG, one small chart a metric. No script, no font and no file from outside."""

from dataclasses import dataclass
from html import escape
from typing import Any

from .metrics import KNOWN
from .pictures import TRUTH

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 24, 26
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")


@dataclass(frozen=True)
class Line:
    """One method's figures: (CRF, value) in rising order."""

    label: str
    points: tuple[tuple[int, float], ...]
    published: bool


def lines(report: dict[str, Any], name: str) -> list[Line]:
    """The measured and the published lines of a metric."""
    found: dict[tuple[str, bool], list[tuple[int, float]]] = {}
    for rows, published in ((report["summary"], False), (report["published"], True)):
        for row in rows:
            value = row["metrics"].get(name)
            if value is not None and row["method"] != TRUTH:
                found.setdefault((row["method"], published), []).append((row["crf"], value))
    return [Line(label, tuple(sorted(points)), published) for (label, published), points in found.items()]


def colours(report: dict[str, Any]) -> dict[str, str]:
    """A colour for each method; published rows of the same name share it."""
    names = [*report["methods"], *(row["method"] for row in report["published"])]
    distinct = list(dict.fromkeys(names))
    return {name: COLOURS[position % len(COLOURS)] for position, name in enumerate(distinct)}


def chart(report: dict[str, Any], name: str) -> str:
    """An SVG element, or "" when the metric has no line of at least one point."""
    drawn = lines(report, name)
    if not drawn:
        return ""
    levels = sorted({crf for line in drawn for crf, _ in line.points})
    values = [value for line in drawn for _, value in line.points]
    low, high = min(values), max(values)
    margin = (high - low or abs(high) or 1) * 0.08
    low, high = low - margin, high + margin

    def place(crf: int, value: float) -> tuple[float, float]:
        span = levels[-1] - levels[0]
        across = (crf - levels[0]) / span if span else 0.5
        x = LEFT + 8 + across * (WIDTH - LEFT - RIGHT - 16)
        return x, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    better = {"higher": "higher is better", "lower": "lower is better", "one": "1 is best"}[KNOWN[name].better]
    parts = [f'<text class="name" x="{LEFT}" y="14">{escape(KNOWN[name].label)} ({better})</text>']
    parts += _axes(levels, low, high, KNOWN[name].digits, place)
    palette = colours(report)
    parts += [_line(line, palette[line.label], place) for line in drawn]
    label = escape(f"{KNOWN[name].label} against CRF", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(levels: list[int], low: float, high: float, digits: int, place) -> list[str]:
    parts = []
    for step in range(4):
        value = low + (high - low) * step / 3
        _, y = place(levels[0], value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value:.{min(digits, 3)}f}</text>')
    for crf in levels:
        x, _ = place(crf, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">CRF {crf}</text>')
    return parts


def _line(line: Line, colour: str, place) -> str:
    places = [place(crf, value) for crf, value in line.points]
    kind = "published" if line.published else "measured"
    title = f"{line.label}{' (published)' if line.published else ''}: " + ", ".join(
        f"CRF {crf} {value:.4g}" for crf, value in line.points
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 if line.published else 3}"/>' for x, y in places)
    return (
        f'<g class="{kind}" style="--colour:{colour}"><title>{escape(title)}</title>'
        f'<polyline points="{path}"/>{dots}</g>'
    )
