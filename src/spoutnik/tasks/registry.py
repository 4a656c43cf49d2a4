"""Tasks by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.base import Task
from spoutnik.tasks.countdown import Countdown

_TASKS: dict[str, Callable[..., Task]] = {"countdown": Countdown}


def names() -> list[str]:
    """The names that `make` knows."""
    return sorted(_TASKS)


def make(name: str, **options: Any) -> Task:
    """Builds the task called `name`; raises UserError for an unknown name, an unknown option or a value out of range."""
    if name not in _TASKS:
        raise UserError(f"there is no task {name!r}; the known ones are {', '.join(names())}.")
    task = _TASKS[name]
    known = [field.name for field in dataclasses.fields(task) if field.init]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise UserError(f"task {name!r} has no option {option!r}; it takes {', '.join(known)}.")
    return task(**options)
