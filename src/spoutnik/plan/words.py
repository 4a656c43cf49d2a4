"""What the planner says, in English and French: `words_en.toml` and `words_fr.toml` have the same keys, one section for each command.

Sentences about mistakes are written in English where they are found; `mistakes_fr.toml` has them, by their English, in French.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import UserError

LANGUAGES = ("en", "fr")


class Words:
    """The sentences of one language: `words("model.title", name="deepseek-v3")`."""

    def __init__(self, table: dict[str, str]):
        self._table = table

    def __call__(self, key: str, **values: Any) -> str:
        """The sentence of that key with its blanks filled in. KeyError for a key that no table has: a fault of ours."""
        return self._table[key].format(**values)

    def keys(self) -> frozenset[str]:
        """All keys."""
        return frozenset(self._table)


@cache
def words(lang: str) -> Words:
    """The sentences of a language. Raises UserError for one that is not there."""
    if lang not in LANGUAGES:
        raise UserError("No language {lang!r}; the planner speaks en and fr.", lang=lang)
    content = _read(f"words_{lang}.toml")
    return Words({f"{section}.{key}": text for section, table in content.items() for key, text in table.items()})


@cache
def sentences(lang: str) -> dict[str, str]:
    """What a language says in place of English sentences; nothing in English."""
    return {} if lang == "en" else {key: text for table in _read(f"mistakes_{lang}.toml").values() for key, text in table.items()}


def _read(name: str) -> dict[str, dict[str, str]]:
    return tomllib.loads(files("spoutnik.plan").joinpath(name).read_text(encoding="utf-8"))
