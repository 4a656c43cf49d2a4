"""Files of problems: JSON lines, read with errors that name the line, and drawn from in an order of their own for each pass."""

import functools
import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from spoutnik.errors import UserError
from spoutnik.tasks.base import SPLITS, check_split, split_of

Item = TypeVar("Item")


class Rows(Generic[Item]):
    """The rows of a file in their splits. `belongs_to` puts all into one; "both" lets a hash of (`kind`, content) decide.

    The path is no part of the hash: a copy of a file must not move its problems to the other split.
    """

    def __init__(self, name: str, kind: str, items: Sequence[Item], content: Callable[[Item], str], belongs_to: str) -> None:
        if belongs_to not in (*SPLITS, "both"):
            raise UserError(f"task {name!r}: option belongs_to is {belongs_to!r}; give 'train', 'held-out' or 'both'.")
        self._name = name
        self._items: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for item in items:
            self._items[split_of(kind, content(item)) if belongs_to == "both" else belongs_to].append(item)
        self._order = functools.lru_cache(maxsize=4)(self._shuffled)

    def at(self, split: str, seed: int, index: int) -> Item:
        """Each pass over the split's rows (index // rows) has its own order, drawn from the seed."""
        check_split(split)
        items = self._items[split]
        if not items:
            path = self._name.partition(":")[2]
            raise UserError(f"{path} has no question in the {split} split; give a longer file or set belongs_to.")
        epoch, place = divmod(index, len(items))
        return items[self._order(split, seed, epoch)[place]]

    def _shuffled(self, split: str, seed: int, epoch: int) -> list[int]:
        order = list(range(len(self._items[split])))
        random.Random(f"{split}/{seed}/{epoch}").shuffle(order)
        return order


def records(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", object) of every line that is not blank; a name that ends in .gz is unpacked. Raises UserError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it.") from error
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path} ({getattr(error, 'strerror', None) or error}); give the path of a JSONL file.") from error
    found = False
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = True
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}", expected)
    if not found:
        raise UserError(f"{path} holds no question; give a JSONL file with one object a line.")


def _object(line: str, where: str, expected: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); put one object on each line.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: found {type(record).__name__}, expected an object with {expected}.")
    return record
