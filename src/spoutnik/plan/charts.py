"""What a plan's page shows as inline SVG: cost by line, a device's memory, a step of the pipeline, cost over the years."""

import math
from collections.abc import Mapping, Sequence

from spoutnik.plan.answer import line_name
from spoutnik.plan.result import Plan
from spoutnik.plan.schedule.cells import Cell, Timeline
from spoutnik.plan.speech import Speech
from spoutnik.plan.trend import declines
from spoutnik.plan.uncertain import Uncertain
from spoutnik.run.report_svg import TEXT_WIDTH, line, polyline, rectangle, svg, text

WIDTH = 1040
FILLS = 4
"""Colours that the page's style has for areas: classes f0 to f3."""
ROLES = {"F": "f0", "B": "f2", "I": "f1", "W": "f3"}
YEARS = 5


def cost_chart(plan: Plan, words: Speech) -> str:
    """A bar a line up to its median, with a whisker over 8 of 10 cases."""
    rows = []
    for one in plan.lines:
        cost = one.figures["cost_usd"].value
        ends = cost.range() if isinstance(cost, Uncertain) else None
        middle = one.figures["cost_usd"].middle
        rows.append((line_name(one, words), middle, ends, words.quantity(cost, "USD")))
    names = 16 + TEXT_WIDTH * max(len(name) for name, *_ in rows)
    most = max(ends.p90 if ends else middle for _, middle, ends, _ in rows) or 1.0
    scale = (WIDTH - names - 20 - TEXT_WIDTH * max(len(note) for *_, note in rows)) / most
    parts = [text(0, 14, words("head.cost"), "title")]
    for index, (name, middle, ends, note) in enumerate(rows):
        y = 30 + 26 * index
        parts += [text(names - 12, y + 14, name, "label", "end"), rectangle(names, y + 2, max(middle * scale, 1), 16, "bar")]
        if ends:
            parts.append(line(names + ends.p10 * scale, y + 10, names + ends.p90 * scale, y + 10, "whisker s1"))
        parts.append(text(names + max(middle, ends.p90 if ends else 0) * scale + 8, y + 14, note, "value"))
    return svg(WIDTH, 36 + 26 * len(rows), parts, words("head.cost"))


def memory_chart(memory: Mapping[str, float], capacity: float, words: Speech) -> str:
    """One bar for a device's memory, cut into what holds it; `capacity` in bytes."""
    whole = max(capacity, sum(memory.values()))
    held = [(name, size) for name, size in memory.items() if size > 0]
    free = capacity - sum(memory.values())
    x, parts, legend = 0.0, [text(0, 14, words("head.memory"), "title")], 0.0
    for index, (name, size) in enumerate([*held, *([("free", free)] if free > 0 else [])]):
        wide = size / whole * WIDTH
        fill = "empty" if name == "free" else f"f{index % FILLS}"
        parts.append(rectangle(x, 26, max(wide - 1, 0.5), 34, fill, 1.0 if index < FILLS else 0.55))
        note = words("plain.pair", name=words(f"memory.{name}"), value=words.quantity(size / 2**30, "GiB"))
        row, place = divmod(index, 4)
        legend = 82 + 20 * row
        parts += [rectangle(place * WIDTH / 4, legend - 10, 11, 11, fill, 1.0 if index < FILLS else 0.55)]
        parts.append(text(place * WIDTH / 4 + 17, legend, note, "label"))
        x += wide
    return svg(WIDTH, legend + 10, parts, words("head.memory"))


def gantt_chart(timeline: Timeline, words: Speech) -> str:
    """One row a device, one box a task with its microbatch; of a pair the forward is above. Waiting is left open."""
    left, row_height = 96.0, 20.0
    scale = (WIDTH - left) / timeline.seconds
    share = words.quantity(timeline.bubble, "share")
    title = words("head.gantt_title", name=timeline.program.name, microbatches=timeline.program.microbatches, bubble=share)
    parts = [text(0, 14, title, "title")]
    for device, cells in enumerate(timeline.cells):
        y = 24 + device * row_height
        parts.append(text(0, y + 13, words("head.device", number=device), "tick"))
        for cell in cells:
            parts += _boxes(cell, left + cell.start * scale, y, (cell.end - cell.start) * scale, row_height - 2)
    bottom = 24 + len(timeline.cells) * row_height + 16
    for place, (kind, fill) in enumerate(ROLES.items()):
        parts += [rectangle(left + 230 * place, bottom - 10, 11, 11, fill), text(left + 17 + 230 * place, bottom, words(f"task.{kind}"))]
    parts.append(text(left, bottom + 20, words("head.gantt_note")))
    return svg(WIDTH, bottom + 28, parts, title)


def _boxes(cell: Cell, x: float, y: float, width: float, height: float) -> list[str]:
    task = cell.task
    if task.kind == "FB" and task.beside:
        return _box("F", task.microbatch, x, y, width, height / 2) + _box("B", task.beside[1], x, y + height / 2, width, height / 2)
    return _box(task.kind, task.microbatch, x, y, width, height)


def _box(kind: str, microbatch: int, x: float, y: float, width: float, height: float) -> list[str]:
    parts = [rectangle(x, y, max(width - 0.5, 0.3), height - 0.5, ROLES[kind])]
    if width >= 12 and height >= 9:
        parts.append(text(x + width / 2, y + height / 2 + 4, str(microbatch), "on-fill", "middle"))
    return parts


def trend_chart(cost: float, words: Speech) -> str:
    """What the same run would cost in each of the next years if it became so many times cheaper a year, by powers of ten."""
    left, right, top, bottom = 90.0, WIDTH - 150.0, 30.0, 208.0
    falls = declines()
    highest, lowest = math.ceil(math.log10(cost)), math.floor(math.log10(cost * falls[-1].times ** -YEARS))
    title = words("head.trend")

    def place(year: float, value: float) -> tuple[float, float]:
        return left + year / YEARS * (right - left), bottom - (math.log10(value) - lowest) / (highest - lowest) * (bottom - top)

    parts = [text(0, 14, title, "title")]
    for power in range(lowest, highest + 1):
        y = place(0, 10.0**power)[1]
        parts += [line(left, y, right, y), text(left - 8, y + 4, words.quantity(10.0**power, "USD"), anchor="end")]
    for year in range(YEARS + 1):
        parts.append(text(place(year, 10.0**lowest)[0], bottom + 17, words("head.years", number=year), anchor="middle"))
    for index, fall in enumerate(falls):
        ends, under = [place(0, cost), place(YEARS, cost * fall.times**-YEARS)], bottom + 42 + 20 * index
        said = words("head.times", number=words.number(fall.times), who=fall.title[words.language])
        parts += [
            polyline(ends, f"s{index}"),
            text(right + 8, ends[-1][1] + 4, words.quantity(cost * fall.times**-YEARS, "USD", exact=False), "value"),
        ]
        parts += [line(left, under - 4, left + 18, under - 4, f"line s{index}"), text(left + 26, under, said, "label")]
    return svg(WIDTH, bottom + 42 + 20 * len(falls), parts, title)


def charts(plan: Plan, words: Speech, capacity: float | None, timeline: Timeline | None) -> Sequence[str]:
    """All that there is to draw of a plan."""
    drawn = []
    if plan.lines:
        drawn.append(cost_chart(plan, words))
    if plan.memory and capacity:
        drawn.append(memory_chart(plan.memory, capacity, words))
    if timeline:
        drawn.append(gantt_chart(timeline, words))
    if plan.kind in ("train", "programme") and plan.figures["cost_usd"].middle > 0:
        drawn.append(trend_chart(plan.figures["cost_usd"].middle, words))
    return drawn
