"""What commands share for printing and for reading options."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(rows: list[list[str]]) -> str:
    """Columns of text, left-aligned, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def megabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 1e6:,.1f} MB"


def task_options(pairs: list[str], option: str = "--option", example: str = "numbers=[2,3]") -> dict[str, Any]:
    """["numbers=[2,3]", "operators=+-"] -> {"numbers": [2, 3], "operators": "+-"}: a value is JSON where it can be, else text.

    `option` and `example` are for the sentence about what is no pair.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UserError(f"{option} {pair!r} is no key=value pair; write it as in {option} {example}.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def data_paths(pairs: list[str]) -> dict[str, str]:
    """["train=a.jsonl"] -> {"train": "a.jsonl"}."""
    paths: dict[str, str] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not path:
            raise UserError("--data {pair!r} is no NAME=PATH pair; write it as in --data train=train.jsonl.", pair=pair)
        paths[name] = path
    return paths


def program() -> str:
    """How the user can call this program again: by name if it is on the path, else by where it is."""
    called = Path(sys.argv[0])
    if shutil.which("spoutnik") or called.name != "spoutnik":
        return "spoutnik"
    return os.path.relpath(called)
