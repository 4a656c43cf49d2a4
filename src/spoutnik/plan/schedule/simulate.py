"""Runs a program: every task starts as soon as its device is free and what it needs is there."""

from spoutnik.errors import UserError
from spoutnik.plan.schedule.cells import Cell, Durations, Program, Task, Timeline


def simulate(program: Program, durations: Durations, hop: float = 0.0) -> Timeline:
    """When everything happens. `hop` is how long activations or their gradients travel from one device to the next.

    Raises UserError if the devices' orders wait for one another for ever, which a generated program never does.
    """
    home = {(task.stage, task.microbatch): device for device, row in enumerate(program.devices) for task in row if task.kind in ("F", "FB")}
    ends: dict[tuple[str, int, int], float] = {}
    cells: list[list[Cell]] = [[] for _ in program.devices]
    busy = [0.0] * len(program.devices)
    next_task, moved = [0] * len(program.devices), True
    while moved:
        moved = False
        for device, row in enumerate(program.devices):
            while next_task[device] < len(row):
                task = row[next_task[device]]
                ready = _ready(task, program.stages, ends, home, hop)
                if ready is None:
                    break
                start = max(ready, cells[device][-1].end if cells[device] else 0.0)
                duration = durations.of(task.kind)
                cells[device].append(Cell(device, start, start + duration, task))
                busy[device] += duration
                ends.update(dict.fromkeys(task.done(), start + duration))
                next_task[device] += 1
                moved = True
    if any(place < len(row) for place, row in zip(next_task, program.devices, strict=True)):
        raise UserError(
            "The schedule {name} of {devices} devices cannot run: its devices wait for one another.",
            name=program.name,
            devices=len(program.devices),
        )
    return Timeline(program, tuple(tuple(row) for row in cells), tuple(busy))


def needs(task: Task, stages: int) -> list[tuple[str, int, int]]:
    """What must be done before a task, as `Task.done` names it."""
    wanted = []
    if task.kind in ("F", "FB") and task.stage > 0:
        wanted.append(("F", task.stage - 1, task.microbatch))
    backward = task.beside if task.kind == "FB" else (task.stage, task.microbatch) if task.kind in ("B", "I") else None
    if backward is not None:
        wanted.append(("F", *backward))
        if backward[0] < stages - 1:
            wanted.append(("I", backward[0] + 1, backward[1]))
    if task.kind == "W":
        wanted.append(("I", task.stage, task.microbatch))
    return wanted


def _ready(task: Task, stages: int, ends: dict[tuple[str, int, int], float], home: dict[tuple[int, int], int], hop: float) -> float | None:
    ready = 0.0
    for need in needs(task, stages):
        end = ends.get(need)
        if end is None:
            return None
        here = task.beside if task.kind == "FB" and need[0] == "I" and task.beside else (task.stage, task.microbatch)
        ready = max(ready, end + (hop if hop and home[need[1:]] != home[here] else 0.0))
    return ready
