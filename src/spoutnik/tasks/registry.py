"""Tasks by name: our own, the adapters `gym:DATASET`, `jsonl:PATH`, `code:PATH` and `lm-eval:TASK`, and mixtures of all of them."""

import dataclasses
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.arithmetic import Arithmetic
from spoutnik.tasks.base import Task
from spoutnik.tasks.code import CodeTask
from spoutnik.tasks.countdown import Countdown
from spoutnik.tasks.gym import GymTask
from spoutnik.tasks.harness import HarnessTask
from spoutnik.tasks.jsonl import JsonlTask
from spoutnik.tasks.letters import Letters
from spoutnik.tasks.mixture import Mixture
from spoutnik.tasks.words import Words

_OWN: dict[str, type[Any]] = {"arithmetic": Arithmetic, "countdown": Countdown, "letters": Letters, "words": Words}
_ADAPTERS = ("gym:DATASET", "jsonl:PATH", "code:PATH", "lm-eval:TASK", "mixture")
_FILES: dict[str, type[Any]] = {"jsonl": JsonlTask, "code": CodeTask, "lm-eval": HarnessTask}


def names() -> list[str]:
    """The tasks that need nothing but their name. `make` also takes the adapters' names."""
    return sorted(_OWN)


def make(name: str, /, **options: Any) -> Task:
    """Builds the task called `name`; raises UserError for an unknown name, an unknown option or a value out of range."""
    kind, colon, source = name.partition(":")
    if colon and kind == "gym":
        return GymTask(source, options)
    if colon and kind in _FILES:
        _check_options(name, _FILES[kind], options, hidden=("path", "source", "pool"))
        adapter: Task = _FILES[kind](source, **options)
        return adapter
    if name == "mixture":
        unknown = set(options) - {"parts"}
        if unknown:
            raise UserError(f"task 'mixture' has no option {min(unknown)!r}; it takes parts.")
        return Mixture(make, options.get("parts"))
    if name not in _OWN:
        raise UserError(f"there is no task {name!r}; the known ones are {', '.join([*names(), *_ADAPTERS])}.")
    _check_options(name, _OWN[name], options)
    task: Task = _OWN[name](**options)
    return task


def _check_options(name: str, task: type[Any], options: dict[str, Any], hidden: tuple[str, ...] = ()) -> None:
    known = [field.name for field in dataclasses.fields(task) if field.init and field.name not in hidden]
    for option in options:
        if option not in known:
            raise UserError(f"task {name!r} has no option {option!r}; it takes {', '.join(known)}.")
