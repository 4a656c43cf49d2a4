"""record.jsonl: what happened in a run, one JSON object a line.

Events: stage_start, step, held-out (what pretraining reached on tokens it never saw), eval, sample, teacher (what asking one cost), judged,
warning, stage_end; each has `event`, `stage` and `time` (seconds since the epoch), a step also `step` and its metrics. Curves, tables and
the report are made from this file alone.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Record:
    """Appends to a record file; a line is with the operating system before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._mend()

    def append(self, event: Event) -> None:
        """Adds one event, with the time if it has none. Numbers that JSON cannot hold (NaN, infinity) become strings."""
        line = json.dumps({"time": round(time.time(), 3), **_finite(event)}, ensure_ascii=False, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def truncate_stage(self, stage: str, step: int) -> None:
        """Drops what `stage` wrote after `step`, so that going on from the state saved at `step` leaves nothing twice.

        Lines without a step count as later than the lines of steps before them. Starts stay, for they happened; an end goes, for the
        stage is not at its end.
        """
        if not self.path.exists():
            return
        kept, dropped, reached = [], 0, 0 if step else 1
        for event in read(self.path):
            mine = event.get("stage") == stage and event.get("event") != "stage_start"
            reached = max(reached, event.get("step", 0)) if mine else reached
            if mine and (event.get("step", reached) > step or event.get("event") == "stage_end"):
                dropped += 1
            else:
                kept.append(event)
        if dropped:
            aside = self.path.with_suffix(".new")
            with aside.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path)

    def _mend(self) -> None:
        """Cuts off a last line that a crash left torn, so that the next one starts clean."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def read(path: Path) -> list[Event]:
    """Every event of a record, in order. A torn last line (the process was killed while writing it) is left out.

    Raises ValueError, naming the line, for damage anywhere else.
    """
    events = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON ({error}); remove the line to read the rest.") from None
        events.append(event)
    return events


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
