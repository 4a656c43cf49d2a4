"""Pieces of grammars in llguidance's dialect of Lark, for one tokenizer."""

import json
import re
from collections.abc import Mapping
from typing import Any

from spoutnik.serve.endless import check_finite
from spoutnik.text.tokenizer import Tokenizer

COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way of writing JSON: a small model that may write white space anywhere may write nothing else."""
TEXT = "TEXT: /(.|\\n)*/"
"""The rule of a text that may be anything, but for tokens that a tokenizer never cuts."""


class Lark:
    """Writes texts and what goes before them."""

    def __init__(self, tokenizer: Tokenizer):
        added = {token.content: number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
        self._added = added
        self._split = re.compile("(" + "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True)) + ")")

    def literal(self, *texts: str) -> str:
        """The texts one after the other: tokens that the tokenizer never cuts by their numbers, the rest in quotes."""
        return " ".join(f"<[{self._added[part]}]>" if part in self._added else _quoted(part) for part in self._parts("".join(texts)))

    def until(self, name: str, mark: str) -> list[str]:
        """The rule `name` and those that it needs: any text up to the first `mark`, which it includes. It needs `TEXT`."""
        parts = self._parts(mark)
        first = next((place for place, part in enumerate(parts) if part in self._added), None)
        if first is None:
            return [f"{name}[lazy]: TEXT {_quoted(mark)}"]
        before, rest = "".join(parts[:first]), self.literal(*parts[first:])
        lead = f"{name.upper()}_LEAD" if before else "TEXT"
        rules = [f"{name}: {lead} {rest} | {name}_spelt", f"{name}_spelt[lazy]: TEXT {_quoted(mark)}"]
        return [*rules, f"{lead}: TEXT {_quoted(before)}"] if before else rules

    def _parts(self, text: str) -> list[str]:
        return [part for part in (self._split.split(text) if self._added else [text]) if part]


def as_json(schema: Mapping[str, Any]) -> str:
    """A value that fits a JSON schema. Raises InvalidRequestError where nothing does."""
    check_finite(schema)
    return f"%json {json.dumps({**schema, 'x-guidance': COMPACT})}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
