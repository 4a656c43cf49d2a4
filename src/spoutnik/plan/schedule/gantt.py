"""A timeline as a picture: SVG that stands alone, and lines of text."""

import html

from spoutnik.plan.schedule.cells import Cell, Timeline

FILL = {"F": "#4c78a8", "B": "#59a14f", "I": "#8cc084", "W": "#f2c14e"}
NAMES = {"F": "forward", "B": "backward", "I": "backward for inputs", "W": "backward for weights"}
STYLE = "text{font:10px system-ui,sans-serif;fill:#222}.m{font-size:8px;text-anchor:middle;fill:#fff}.W.m,.I.m{fill:#222}"


def svg(timeline: Timeline, width: float = 1200.0) -> str:
    """One row a device, one box a task with its microbatch; a pair is a forward above its backward. Idle time is left white."""
    row_height, left, top = 22.0, 64.0, 30.0
    scale = (width - left - 8) / timeline.seconds
    program = timeline.program
    title = (
        f"{program.name}: {len(program.devices)} devices, {program.stages} stages, {program.microbatches} microbatches; "
        f"{timeline.seconds:g} units, {timeline.idle:g} of them idle ({timeline.bubble:.1%})"
    )
    parts = [f'<text x="8" y="16">{html.escape(title)}</text>']
    for device, row in enumerate(timeline.cells):
        y = top + device * row_height
        parts.append(f'<text x="8" y="{y + 14:.1f}">device {device}</text>')
        parts += [_box(cell, left + cell.start * scale, y, (cell.end - cell.start) * scale, row_height - 3) for cell in row]
    bottom = top + len(timeline.cells) * row_height + 6
    for place, (kind, name) in enumerate(NAMES.items()):
        x = left + 150 * place
        parts.append(f'<rect x="{x:.0f}" y="{bottom:.0f}" width="10" height="10" fill="{FILL[kind]}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="{bottom + 9:.0f}">{name}</text>')
    height = bottom + 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _box(cell: Cell, x: float, y: float, width: float, height: float) -> str:
    task = cell.task
    if task.kind != "FB":
        return _part(task.kind, task.microbatch, x, y, width, height)
    assert task.beside is not None
    return _part("F", task.microbatch, x, y, width, height / 2) + _part("B", task.beside[1], x, y + height / 2, width, height / 2)


def _part(kind: str, microbatch: int, x: float, y: float, width: float, height: float) -> str:
    box = f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{FILL[kind]}" stroke="#fff" stroke-width="0.5"/>'
    if width < 9:
        return box
    return box + f'<text class="m {kind}" x="{x + width / 2:.2f}" y="{y + height / 2 + 3:.2f}">{microbatch}</text>'


def text(timeline: Timeline, unit: float) -> str:
    """As many characters for every `unit` of time as a task's letter and microbatch take, which stand at its start; dashes as long as it
    lasts, dots for waiting.

    F forward, B backward, I backward for inputs, W backward for weights, P a forward and a backward together (the forward's microbatch).
    """
    wide, lines = 1 + len(str(timeline.program.microbatches - 1)), []
    for device, row in enumerate(timeline.cells):
        line = ""
        for cell in row:
            line += "." * (round(wide * cell.start / unit) - len(line))
            room = round(wide * cell.end / unit) - len(line)
            label = f"{'P' if cell.task.kind == 'FB' else cell.task.kind}{cell.task.microbatch}"
            line += label[:room].ljust(room, "-")
        line += "." * (round(wide * timeline.seconds / unit) - len(line))
        lines.append(f"{device:>3} {line}")
    return "\n".join(lines)
