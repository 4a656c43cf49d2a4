"""What charts are drawn with, as inline SVG: marks, round ticks, running means. Colours come from the page's style, for both themes."""

import html
import math
from collections.abc import Sequence

Point = tuple[float, float]
TEXT_WIDTH = 6.6
"""Pixels that one character of the charts' 12-pixel text takes, rather too many than too few."""


def svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """The whole drawing; it scales to the width that the page gives it."""
    label = html.escape(title, quote=True)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def text(x: float, y: float, label: str, kind: str = "tick", anchor: str = "start") -> str:
    """`kind` is a class of the page's style: title, tick, label, value."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(label)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1.0) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill-opacity="{opacity:.3f}"/>'


def dot(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def polyline(points: Sequence[Point], kind: str) -> str:
    """A line through points in pixels; a single one becomes a dot."""
    if len(points) == 1:
        return dot(*points[0], 3, kind)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line {kind}" points="{path}"/>'


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, a step of 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """All with the same number of decimals: as many as their step needs."""
    if not ticks:
        return []
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) or 1.0
    largest = max(map(abs, ticks))
    if largest < 1e-3 or largest >= 1e7:
        return [f"{tick:.2g}" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:,.{decimals}f}" for tick in ticks]


def running_mean(points: Sequence[Point]) -> list[Point]:
    """The mean over a window of a twenty-fifth of the points, centred, narrower towards the ends."""
    half, sums = len(points) // 50, [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        smooth.append((x, (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)))
    return smooth


def thin_out(points: Sequence[Point], most: int = 800) -> list[Point]:
    """At most `most` points, keeping the lowest and the highest of every stretch, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept
