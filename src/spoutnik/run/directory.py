"""The folder of a run.

DIR/record.jsonl            everything that happened, one JSON object a line
DIR/stages/NAME/            a stage's working state: definition, newest saved state, ledger, `done` once it is finished
DIR/checkpoints/NAME/       what the stage made: a Hugging Face directory
DIR/report.html             the report
DIR/lock                    held while a process works here
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError


@dataclass(frozen=True)
class RunDirectory:
    path: Path

    @property
    def record_path(self) -> Path:
        return self.path / "record.jsonl"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    def stage(self, name: str) -> Path:
        return self.path / "stages" / name

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / name

    def is_done(self, name: str) -> bool:
        return (self.stage(name) / "done").exists()

    def mark_done(self, name: str) -> None:
        write_whole(self.stage(name) / "done", "")

    def definition(self, name: str) -> dict[str, Any] | None:
        """What the stage was when it was begun here; None if it was not begun."""
        path = self.stage(name) / "definition.json"
        if not path.exists():
            return None
        definition: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return definition

    def begin(self, name: str, definition: dict[str, Any]) -> None:
        self.stage(name).mkdir(parents=True, exist_ok=True)
        write_whole(self.stage(name) / "definition.json", json.dumps(definition, indent=2, sort_keys=True) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for this process. The lock is the kernel's: it goes when the process does, however it dies.

        Raises UserError if another process works here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise UserError(
                    f"Another process (pid {owner}) is already working in {self.path}; wait for it, stop it, or give another --out."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def write_whole(path: Path, text: str) -> None:
    """Writes a small file so that a reader, or the next start after a crash, sees the old content or the new, never a part."""
    aside = path.with_name(path.name + ".new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
