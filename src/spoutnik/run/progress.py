"""Progress on stderr: a bar where someone watches, a plain line every few seconds where nobody does (a log, CI)."""

import sys
import time
from types import TracebackType
from typing import Any, Self

PLAIN_EVERY_S = 10.0
SHOWN = ("reward", "reverse_kl", "accuracy", "loss", "tokens_per_s")


class Progress:
    """Use as a context manager; `update(step, metrics)` after every step. Shows the metrics named in SHOWN, and the time left;
    the loss only where there is no reward, for a policy's loss says nothing.

    `done` is the step that a resumed stage starts from, so that the time left is judged by the steps made now.
    """

    def __init__(self, name: str, total: int, done: int = 0, terminal: bool | None = None) -> None:
        self.name, self.total, self.first = name, total, done
        self._start = self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty() if terminal is None else terminal

    def __enter__(self) -> Self:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=False)
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, completed=self.first, note="")
        return self

    def update(self, step: int, metrics: dict[str, Any] | None = None) -> None:
        note = self._note(step, metrics or {})
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
        elif step == self.total or time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            print(f"{self.name}  {step}/{self.total}  {note}", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _note(self, step: int, metrics: dict[str, Any]) -> str:
        keys = [key for key in SHOWN if key in metrics and not (key == "loss" and "reward" in metrics)]
        parts = [f"{_label(key)} {_short(metrics[key])}" for key in keys]
        made = step - self.first
        if made > 0 and step < self.total:
            left = (time.monotonic() - self._start) / made * (self.total - step)
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)


def _label(metric: str) -> str:
    return f"{metric.removesuffix('_per_s')}/s" if metric.endswith("_per_s") else metric.replace("_", " ")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """59 -> "59 s"; 80 -> "1 min 20 s"; 900 -> "15 min"; 7,260 -> "2 h 01 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
