"""The charts of the report: lines, dots with intervals, a heat map, bars. Axes start at zero; shares always run from 0 to 100 %."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.run.report_svg import (
    TEXT_WIDTH,
    Point,
    dot,
    line,
    nice_ticks,
    polyline,
    rectangle,
    running_mean,
    svg,
    text,
    thin_out,
    tick_labels,
)

SHARE_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Series:
    """One line of a chart: `points` are (x, y) with x ascending."""

    name: str
    points: list[Point]


@dataclass(frozen=True)
class Interval:
    """A share between 0 and 1 with the ends of its confidence interval (equal to it where there is none)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Frame:
    """Where a chart's values lie: ranges of the values, and the pixels that they are drawn on."""

    first: float
    last: float
    bottom_value: float
    top_value: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, value: float) -> float:
        return self.left + (value - self.first) / ((self.last - self.first) or 1) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.bottom_value) / (self.top_value - self.bottom_value) * (self.bottom - self.top)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x(x), self.y(y)) for x, y in points]


def line_chart(series: Sequence[Series], title: str, percent: bool = False, width: int = 500, height: int = 250) -> str:
    """Lines by step over an axis that starts at 0 (or below, for negative values); thin is every point, thick the running mean.

    `percent` fixes the axis at 0 to 100 %. Nothing where there is no point.
    """
    series = [one for one in series if one.points]
    if not series:
        return ""
    values = [y for one in series for _, y in one.points]
    ticks = list(SHARE_TICKS) if percent else nice_ticks(min(0.0, *values), max(values))
    labels = [f"{tick:.0%}" for tick in ticks] if percent else tick_labels(ticks)
    first, last = min(one.points[0][0] for one in series), max(one.points[-1][0] for one in series)
    left = 14 + TEXT_WIDTH * max(map(len, labels))
    frame = Frame(first, last, ticks[0], ticks[-1], left, width - 14, 44, height - 38)
    parts = [text(0, 14, title, "title"), *_axes(frame, ticks, labels), text(frame.right, height - 4, "step", anchor="end")]
    legend = left
    for number, one in enumerate(series):
        colour = f"s{number % 4}"
        parts += [
            polyline(frame.pixels(thin_out(one.points)), f"{colour} raw"),
            polyline(frame.pixels(thin_out(running_mean(one.points))), colour),
        ]
        if len(series) > 1:
            parts += [line(legend, 29, legend + 16, 29, f"line {colour}"), text(legend + 21, 33, one.name)]
            legend += 36 + TEXT_WIDTH * len(one.name)
    return svg(width, height, parts, title)


def _axes(frame: Frame, ticks: Sequence[float], labels: Sequence[str]) -> list[str]:
    """Grid lines with their values, and the steps below."""
    parts = []
    for tick, label in zip(ticks, labels, strict=True):
        parts += [line(frame.left, frame.y(tick), frame.right, frame.y(tick)), text(frame.left - 6, frame.y(tick) + 4, label, anchor="end")]
    steps = [tick for tick in nice_ticks(frame.first, frame.last) if frame.first <= tick <= frame.last and float(tick).is_integer()]
    return parts + [
        text(frame.x(tick), frame.bottom + 17, label, anchor="middle") for tick, label in zip(steps, tick_labels(steps), strict=True)
    ]


def dot_plot(rows: Sequence[tuple[str, list[Interval | None]]], panels: Sequence[str], title: str, width: int = 1040) -> str:
    """One row a model, one panel a measure; every dot bears its value and, where there is one, its interval."""
    names, row_height, top, gap, value_room = 16 + TEXT_WIDTH * max(len(name) for name, _ in rows), 30, 40, 26, 46
    panel, height = (width - names - gap * len(panels)) / len(panels), 62 + row_height * len(rows)
    middles = [top + row_height * (index + 0.5) for index in range(len(rows))]
    parts = [text(names - 12, y + 4, name, "label", "end") for y, (name, _) in zip(middles, rows, strict=True)]
    for number, heading in enumerate(panels):
        start, span, colour = names + number * (panel + gap), panel - value_room, f"s{number % 4}"
        parts.append(text(start, 14, heading, "title"))
        for tick in SHARE_TICKS:
            x = start + tick * span
            parts += [line(x, top - 10, x, top + row_height * len(rows)), text(x, height - 4, f"{tick:.0%}", anchor="middle")]
        for y, (_, shares) in zip(middles, rows, strict=True):
            share = shares[number]
            if share is None:
                parts.append(text(start + 6, y + 4, "not measured"))
                continue
            parts.append(line(start + share.low * span, y, start + share.high * span, y, f"whisker {colour}"))
            parts.append(dot(start + share.value * span, y, 5, colour))
            parts.append(text(start + share.high * span + 10, y + 4, f"{share.value:.1%}", "value"))
    return svg(width, height, parts, title)


def heat_map(load_LE: Sequence[Sequence[float]], title: str, width: int = 500) -> str:
    """Share of the tokens that each expert got, by layer, over an even share: 1 is even, a cross marks an expert that got none."""
    experts = max(len(row) for row in load_LE)
    left, top, cell_height = 58, 42, 24
    cell = (width - left - 4) / experts
    parts = [text(0, 14, title, "title"), text(left, top - 8, f"experts 1 to {experts}")]
    for layer, row in enumerate(load_LE):
        y, total = top + layer * cell_height, sum(row) or 1.0
        parts.append(text(left - 8, y + 16, f"layer {layer + 1}", anchor="end"))
        for expert, share in enumerate(row):
            x, relative = left + expert * cell, share / total * len(row)
            parts.append(rectangle(x, y, cell - 1, cell_height - 1, "cell", min(relative / 2, 1)))
            if share == 0:
                parts.append(f'<path class="dead" d="M{x + cell / 2 - 5:.1f} {y + 6}l10 10m0 -10l-10 10"/>')
            elif cell >= 26:
                parts.append(
                    text(x + cell / 2, y + 16, f"{relative:.2f}", "cell-value on-dark" if relative > 1.1 else "cell-value", "middle")
                )
    y = top + cell_height * len(load_LE) + 16
    parts += [rectangle(left + step * 20, y, 20, 10, "cell", step / 8) for step in range(9)]
    parts += [text(left, y + 24, "0"), text(left + 90, y + 24, "even", anchor="middle"), text(left + 165, y + 24, "2 times even or more")]
    return svg(width, y + 30, parts, title)


def bars(rows: Sequence[tuple[str, float, str]], title: str, width: int = 1040) -> str:
    """Horizontal bars from 0: (name, length, what to write at its end)."""
    names = 16 + TEXT_WIDTH * max(len(name) for name, _, _ in rows)
    room = 20 + TEXT_WIDTH * max(len(note) for _, _, note in rows)
    most = max(length for _, length, _ in rows) or 1.0
    parts = [text(0, 14, title, "title")]
    for index, (name, length, note) in enumerate(rows):
        y, long = 30 + 26 * index, length / most * (width - names - room)
        parts += [text(names - 12, y + 14, name, "label", "end"), rectangle(names, y + 2, max(long, 1), 16, "bar")]
        parts.append(text(names + long + 8, y + 14, note, "value"))
    return svg(width, 36 + 26 * len(rows), parts, title)
