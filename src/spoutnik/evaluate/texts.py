"""Perplexities that were measured, in a file: a stage that was stopped goes on with what is missing."""

from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from spoutnik.engine.generator import Engine
from spoutnik.evaluate.figures import General
from spoutnik.evaluate.perplexity import perplexity
from spoutnik.run.directory import write_whole

_FILE = TypeAdapter(list[General])


class TextFile:
    """`measured` holds what the file at `path` does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.measured = _FILE.validate_json(path.read_bytes()) if path.exists() else []

    def measure(self, model: str, text: str, characters: int, engine: Callable[[], Engine]) -> None:
        """Adds what a model makes of the first `characters` of a text, unless it is there."""
        if any((one.model, one.text) == (model, text) for one in self.measured):
            return
        self.measured.append(General(model=model, text=text, **perplexity(engine(), text, characters)))
        write_whole(self._path, _FILE.dump_json(self.measured, indent=2).decode() + "\n")
