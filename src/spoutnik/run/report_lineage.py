"""The lineage graph: which checkpoint was made from which, as boxes in columns."""

from collections.abc import Mapping

from spoutnik.run.report_svg import TEXT_WIDTH, Point, text

HEIGHT, ROW, GAP = 40, 66, 46


def lineage_graph(kinds: Mapping[str, str], inputs: Mapping[str, Mapping[str, str]]) -> str:
    """`kinds`: stage -> its kind; `inputs`: stage -> key -> what it names. A model from outside, which is no stage, gets a dashed box."""
    names = list(dict.fromkeys([*(name for named in inputs.values() for name in named.values() if name not in kinds), *kinds]))
    column = {name: _depth(name, inputs) for name in names}
    columns = [[name for name in names if column[name] == index] for index in range(max(column.values(), default=0) + 1)]
    widths = [max(TEXT_WIDTH * max(len(name), len(kinds.get(name, "from outside"))) + 24 for name in members) for members in columns]
    starts = [sum(widths[:index]) + GAP * index for index in range(len(columns))]
    rows = _rows(columns, inputs)
    place = {name: (starts[column[name]], rows[name] * ROW + 6.0) for name in names}
    parts: list[str] = []
    for child, named in inputs.items():
        for key, parent in named.items():
            begin = (place[parent][0] + widths[column[parent]], place[parent][1] + HEIGHT / 2)
            end = (place[child][0], place[child][1] + HEIGHT / 2)
            lane = place[parent][1] + HEIGHT + 6 + 5 * (len(parts) // 2 % 3) if column[child] - column[parent] > 1 else None
            parts += [_edge(begin, end, lane, "edge" if key == "from" else "edge dashed"), _arrow(end)]
    for name in names:
        x, y = place[name]
        outside = "" if name in kinds else " outside"
        parts.append(f'<rect class="box{outside}" x="{x:.1f}" y="{y:.1f}" width="{widths[column[name]]:.1f}" height="{HEIGHT}" rx="5"/>')
        parts.append(text(x + 12, y + 17, name, "label"))
        parts.append(text(x + 12, y + 32, kinds.get(name, "from outside"), "tick"))
    width, height = max(starts[-1] + widths[-1] + 2, 1), (max(rows.values()) + 1) * ROW
    size = f'style="width:{width:.0f}px" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="lineage" {size} role="img" aria-label="lineage">{"".join(parts)}</svg>'


def _edge(begin: Point, end: Point, lane: float | None, kind: str) -> str:
    """A curve from box to box; one that passes a column runs at the height `lane`, between two rows of boxes, so that none hides it."""
    (x1, y1), (x2, y2) = begin, (end[0] - 7, end[1])
    if lane is None:
        middle = (x1 + x2) / 2
        return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'
    down, up = x1 + GAP / 2, end[0] - GAP / 2
    there = f"C{down:.1f} {y1:.1f} {x1:.1f} {lane:.1f} {down:.1f} {lane:.1f}H{up:.1f}"
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}{there}C{end[0]:.1f} {lane:.1f} {up:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'


def _arrow(end: Point) -> str:
    return f'<path class="arrow" d="M{end[0] - 8:.1f} {end[1] - 4:.1f}l8 4l-8 4z"/>'


def _depth(name: str, inputs: Mapping[str, Mapping[str, str]]) -> int:
    """Length of the longest way from something that has no inputs."""
    return max((_depth(parent, inputs) + 1 for parent in inputs.get(name, {}).values()), default=0)


def _rows(columns: list[list[str]], inputs: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """A row for each: as near as possible to that of its first input, never taken twice in a column."""
    rows: dict[str, int] = {}
    for members in columns:
        taken: set[int] = set()
        for name in sorted(members, key=lambda name: min((rows[parent] for parent in inputs.get(name, {}).values()), default=0)):
            wanted = min((rows[parent] for parent in inputs.get(name, {}).values()), default=0)
            rows[name] = next(row for row in range(wanted, wanted + len(rows) + 1) if row not in taken)
            taken.add(rows[name])
    return rows
