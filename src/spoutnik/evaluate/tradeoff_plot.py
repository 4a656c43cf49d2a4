"""The plot of cost against quality, as SVG or as a page: no script, nothing fetched, dates beside every model."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.evaluate.labels import Box, leads_to, place
from spoutnik.evaluate.tradeoff import AXES, Axis, LeftOut, Origin, Point, frontier
from spoutnik.run.directory import write_whole
from spoutnik.run.report_svg import TEXT_WIDTH, dot, line, nice_ticks, polyline, rectangle, svg, text, tick_labels

WIDTH, HEIGHT = 900.0, 572.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 876.0, 56.0, 452.0
LABEL_HEIGHT = 28.0
RADIUS = 5.0
MARGIN = 1.6
"""By so much the axis goes beyond the cheapest and the dearest model."""
Spot = tuple[float, float]
"""A place in pixels."""
LEGEND: dict[Origin, str] = {
    "measured": "measured here, with the 95% interval",
    "maker": "published by the model's maker",
    "other": "published by somebody else",
}
STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
text { fill: #1c1e21; stroke: #fdfdfb; stroke-width: 3px; stroke-linejoin: round; paint-order: stroke; }
.title { font-weight: 600; font-size: 15px; } .tick { fill: #5d646e; } .paper { fill: #fdfdfb; }
.grid { stroke: #dcdcd6; } .leader { stroke: #8a919b; stroke-width: 0.8; } .line { fill: none; stroke-width: 1.5; }
.whisker { stroke: #1f5fbf; stroke-width: 2; opacity: 0.6; } .line.measured { stroke: #1f5fbf; } .dot.measured { fill: #1f5fbf; }
.line.published { stroke: #c2541b; stroke-dasharray: 5 4; } .mark { stroke: #c2541b; stroke-width: 2; fill: #fdfdfb; }
@media (prefers-color-scheme: dark) { text { fill: #e8e8e4; stroke: #15171a; } .tick { fill: #a0a6af; } .paper { fill: #15171a; }
  .grid { stroke: #34383e; } .whisker, .line.measured { stroke: #7db0ff; } .dot.measured { fill: #7db0ff; }
  .line.published { stroke: #f0975c; } .mark { stroke: #f0975c; fill: #15171a; } }
"""
PAGE_STYLE = """
:root { color-scheme: light dark; } body { margin: 2rem auto; max-width: 960px; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; } th, td { padding: 0.25rem 1rem 0.25rem 0; text-align: left; border-bottom: 1px solid #8884; }
td { vertical-align: top; } small { opacity: 0.75; overflow-wrap: anywhere; } svg { width: 100%; height: auto; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Plot:
    """What one plot shows; there must be a point."""

    points: Sequence[Point]
    left_out: Sequence[LeftOut]
    title: str
    axis: Axis
    currency: str


def draw(points: Sequence[Point], title: str, axis: Axis, currency: str) -> str:
    """The whole plot as SVG. There must be a point. Costs are on a logarithmic axis; the frontiers of both origins are apart."""
    costs = [point.cost for point in points]
    low, high = min(costs) / MARGIN, max(costs) * MARGIN
    span = math.log(high / low)
    least, most = min(point.low for point in points), max(point.high for point in points)
    ticks = [tick for tick in nice_ticks(max(0.0, least - 0.03), min(1.0, most + 0.03)) if -1e-9 <= tick <= 1 + 1e-9]

    def x(cost: float) -> float:
        return LEFT + math.log(cost / low) / span * (RIGHT - LEFT)

    def y(score: float) -> float:
        return BOTTOM - (score - ticks[0]) / (ticks[-1] - ticks[0]) * (BOTTOM - TOP)

    parts = [f"<style>{STYLE}</style>", rectangle(0, 0, WIDTH, HEIGHT, "paper"), text(LEFT, 26, title, "title")]
    for tick, name in zip(ticks, tick_labels([100 * tick for tick in ticks]), strict=True):
        parts += [line(LEFT, y(tick), RIGHT, y(tick)), text(LEFT - 8, y(tick) + 4, f"{name}%", "tick", "end")]
    for cost in _ticks(low, high):
        parts += [line(x(cost), TOP, x(cost), BOTTOM), text(x(cost), BOTTOM + 18, f"{cost:.15g}", "tick", "middle")]
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 40, f"{currency} for {AXES[axis]}, logarithmic", "label", "middle"))
    spots = [(x(point.cost), y(point.score)) for point in points]
    steps = {kind: _steps([(x(point.cost), y(point.score)) for point in frontier(chosen)]) for kind, chosen in _by_kind(points).items()}
    whiskers = [(place_x, y(point.low), y(point.high)) for (place_x, _), point in zip(spots, points, strict=True) if point.high > point.low]
    parts += [polyline(corners, kind) for kind, corners in steps.items()]
    parts += [line(place_x, bottom, place_x, top, "whisker") for place_x, bottom, top in whiskers]
    parts += [_mark(*spot, point.origin) for spot, point in zip(spots, points, strict=True)]
    drawn = [Box(min(a, c), min(b, d) - 1, max(a, c) + 1, max(b, d)) for corners in steps.values() for (a, b), (c, d) in pairwise(corners)]
    drawn += [Box(place_x - 2, top, place_x + 2, bottom) for place_x, bottom, top in whiskers]
    parts += _labels(points, spots, drawn)
    return svg(WIDTH, HEIGHT, [*parts, *_legend(points)], title).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _by_kind(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Measured and published ones, where there are any."""
    kinds = {"measured": [point for point in points if point.origin == "measured"]}
    kinds["published"] = [point for point in points if point.origin != "measured"]
    return {kind: chosen for kind, chosen in kinds.items() if len(chosen) > 1}


def _steps(spots: Sequence[Spot]) -> list[Spot]:
    """Stairs: up to the next point nothing better is to be had."""
    corners = list(spots[:1])
    for before, after in pairwise(spots):
        corners += [(after[0], before[1]), after]
    return [*corners, (RIGHT, spots[-1][1])]


def _labels(points: Sequence[Point], spots: Sequence[Spot], drawn: Sequence[Box]) -> list[str]:
    taken = [Box(x - RADIUS - 1, y - RADIUS - 1, x + RADIUS + 1, y + RADIUS + 1) for x, y in spots]
    names = [point.model.rstrip("/").rpartition("/")[2] for point in points]  # of a path the last part
    sizes = [(max(len(name), len(point.date)) * TEXT_WIDTH, LABEL_HEIGHT) for name, point in zip(names, points, strict=True)]
    labels = place(spots, sizes, taken, drawn, Box(LEFT + 2, TOP - 14, RIGHT, BOTTOM - 2))
    parts = []
    for name, point, (x, y), label in zip(names, points, spots, labels, strict=True):
        box = label.box
        if box.left < x < box.right:
            anchor, place_x = "middle", (box.left + box.right) / 2
        else:
            anchor, place_x = ("end", box.right) if box.right <= x else ("start", box.left)
        if not label.near:
            parts.append(line(x, y, *leads_to((x, y), box), "leader"))
        parts += [text(place_x, box.top + 12, name, "label", anchor), text(place_x, box.top + 25, point.date, "tick", anchor)]
    return parts


def _legend(points: Sequence[Point]) -> list[str]:
    parts, x, y = [], LEFT, BOTTOM + 64
    for origin in LEGEND:
        if any(point.origin == origin for point in points):
            parts += [_mark(x + RADIUS, y, origin), text(x + 18, y + 4, LEGEND[origin], "label")]
            x += 18 + len(LEGEND[origin]) * TEXT_WIDTH + 16
    lines = [
        "Dates: the day of measuring for what was measured, the model's release for what was published. Stairs: what nothing cheaper beats."
    ]
    if len({point.origin == "measured" for point in points}) > 1:
        lines.append("Measured and published scores come from different tests or conditions: compare heights within one colour only.")
    return [*parts, *(text(LEFT, BOTTOM + 88 + 16 * index, content, "tick") for index, content in enumerate(lines))]


def _mark(x: float, y: float, origin: Origin) -> str:
    """A filled circle, a hollow diamond or a hollow square."""
    if origin == "measured":
        return dot(x, y, RADIUS, "measured")
    if origin == "other":
        return f'<rect class="mark" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    return f'<path class="mark" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the ends; powers alone over more than three decades."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [cost for power in powers for factor in factors if low <= (cost := float(f"{factor}e{power}")) <= high]


def save(path: Path, plots: Sequence[Plot]) -> None:
    """Writes the plot as .svg, or all of them as a page; see `check_name`."""
    only = plots[0]
    write_whole(path, draw(only.points, only.title, only.axis, only.currency) if path.suffix == ".svg" else page(plots))


def check_name(path: Path, plots: int = 1) -> None:
    """Raises UserError where so many plots have no place in a file of this name."""
    if path.suffix not in (".svg", ".html"):
        raise UserError(f"--plot is {path}; give a file that ends in .svg or .html.")
    if plots > 1 and path.suffix == ".svg":
        raise UserError(f"--plot is {path}, but there are {plots} tasks; give a file that ends in .html, which holds a plot for each.")


def page(plots: Sequence[Plot]) -> str:
    """Each plot with a table of its points and their sources."""
    metas = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    title = html.escape("; ".join(plot.title for plot in plots))
    body = "".join(map(_section, plots))
    return (
        f'<!doctype html><html lang="en"><head>{metas}<title>{title}</title><style>{PAGE_STYLE}</style></head><body>{body}</body></html>\n'
    )


def _section(plot: Plot) -> str:
    heads = ["model", "date", "score", "95% interval", f"{plot.currency} for {AXES[plot.axis]}", "origin", "sources"]
    ranked = sorted(plot.points, key=lambda point: (point.origin != "measured", -point.score))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in _row(point)) + "</tr>" for point in ranked)
    missing = "".join(f"<li>{html.escape(f'{one.model}: {one.reason}')}</li>" for one in plot.left_out)
    rest = f"<p>Without a point:</p><ul>{missing}</ul>" if missing else ""
    drawing = draw(plot.points, plot.title, plot.axis, plot.currency)
    return f"{drawing}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _row(point: Point) -> list[str]:
    interval = f"{point.low:.1%} to {point.high:.1%}" if point.origin == "measured" else ""
    cost = f"{point.cost:.4g} ({point.note})"
    return [point.model, point.date, f"{point.score:.1%}", interval, cost, point.by, " ".join(point.sources)]


def _cell(content: str) -> str:
    escaped = html.escape(content)
    return f"<small>{escaped}</small>" if content.startswith("http") else escaped
