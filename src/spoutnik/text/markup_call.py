"""Reads function calls that are written as markup, each parameter between tags of its own, and makes JSON of them.

Values stand there as they are, without quotes and escapes, so which of them are strings has to be known from elsewhere: DeepSeek's tags say
it, for Qwen's the function's schema does. Text is taken character by character, so how it is cut changes nothing, and a string is passed
on while it is written.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spoutnik.text.json_call import CallArguments, CallPart, CallStart
from spoutnik.text.reasoning import overlap

Schemas = Mapping[str, Mapping[str, Any]]
"""JSON schemas of the parameters of functions, by the functions' names."""
DSML = "｜DSML｜"  # noqa: RUF001
LITERALS = {"True": "true", "False": "false", "None": "null"}
"""As templates in Python's manner write them."""


@dataclass(frozen=True)
class Markup:
    """How tags look. The patterns match whole tags, and their first group is a name."""

    call: re.Pattern[str]
    call_end: str
    parameter: re.Pattern[str]
    """A second group may say whether the value is a string."""
    parameter_end: str
    lines: bool
    """Whether line feeds around a value belong to the tags."""


QWEN_MARKUP = Markup(
    re.compile(r"<function=([^<>\n]+)>"), "</function>", re.compile(r"<parameter=([^<>\n]+)>"), "</parameter>", True
)  # fmt: skip
"""Qwen3-Coder."""
DSML_MARKUP = Markup(
    re.compile(rf'<{DSML}invoke name="([^"]+)">'), f"</{DSML}invoke>",
    re.compile(rf'<{DSML}parameter name="([^"]+)"(?: string="(true|false)")?>'), f"</{DSML}parameter>", False,
)  # fmt: skip
"""DeepSeek-V3.2 and V4 (encoding/encoding_dsv32.py and encoding_dsv4.py in their repositories)."""


class MarkupCalls:
    """Calls one after the other; what stands between tags is passed over. See `tool_parsers.Inside`."""

    def __init__(self, markup: Markup, schemas: Schemas):
        self.raw = ""
        self.started = False
        self._markup, self._schemas = markup, schemas
        self._tag = ""  # from the last "<" on
        self._function: str | None = None
        self._count = 0  # parameters of the call so far
        self._value: _Value | None = None

    @property
    def quoted(self) -> bool:
        """Whether a value is open, in which a closing mark is none."""
        return self._value is not None

    def feed(self, character: str) -> list[CallPart]:
        """Takes the next character and returns what became known."""
        self.raw += character
        if self._value is not None:
            written = self._value.feed(character)
            if self._value.done:
                self._value = None
            return [CallArguments(written)] if written else []
        self._tag = character if character == "<" else self._tag and self._tag + character
        if character != ">":
            return []
        tag, self._tag = self._tag, ""
        return self._begin(tag) if self._function is None else self._within(tag)

    def close(self) -> list[CallPart]:
        """The text has ended. A call whose last value was complete is so, too; a value that breaks off leaves its JSON broken off."""
        if self._value is not None:
            written = self._value.rest()
            return [CallArguments(written)] if written else []
        return self._end() if self._function is not None else []

    def _begin(self, tag: str) -> list[CallPart]:
        if (call := self._markup.call.fullmatch(tag)) is None:
            return []
        self._function, self._count, self.started = call[1], 0, True
        return [CallStart(call[1]), CallArguments("{")]

    def _within(self, tag: str) -> list[CallPart]:
        if tag == self._markup.call_end:
            return self._end()
        if (parameter := self._markup.parameter.fullmatch(tag)) is None:
            return []
        name, told = parameter[1], parameter[2] if self._markup.parameter.groups > 1 else None
        string = told == "true" if told is not None else is_string(self._schema(name))
        self._value = _Value(self._markup, string)
        key = f"{', ' if self._count else ''}{json.dumps(name, ensure_ascii=False)}: "
        self._count += 1
        return [CallArguments(key + ('"' if string else ""))]

    def _end(self) -> list[CallPart]:
        self._function = None
        return [CallArguments("}")]

    def _schema(self, parameter: str) -> Any:
        properties = self._schemas.get(self._function or "", {}).get("properties")
        return properties.get(parameter) if isinstance(properties, Mapping) else None


def is_string(schema: Any) -> bool:
    """Whether a JSON schema allows nothing but strings."""
    if not isinstance(schema, Mapping):
        return False
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list):
        return all(isinstance(choice, str) for choice in choices)
    return schema.get("type") in ("string", ["string"])


class _Value:
    """One value up to its closing tag: a string's characters as they come, anything else at the end."""

    def __init__(self, markup: Markup, string: bool):
        self.done = False
        self._end, self._lines, self._string = markup.parameter_end, markup.lines, string
        self._first = markup.lines  # whether a line feed may come that belongs to the tag
        self._held = ""

    def feed(self, character: str) -> str:
        """The JSON that became known."""
        first, self._first = self._first, False
        if first and character == "\n":
            return ""
        self._held += character
        if self._held.endswith(self._end):
            self.done = True
            text = self._held.removesuffix(self._end)
            text = text.removesuffix("\n") if self._lines else text
            return _inner(text) + '"' if self._string else _json(text)
        if not self._string:
            return ""
        safe = len(self._held) - max(overlap(self._held, self._end), overlap(self._held, f"\n{self._end}") if self._lines else 0)
        text, self._held = self._held[:safe], self._held[safe:]
        return _inner(text)

    def rest(self) -> str:
        """What is left where the text broke off."""
        return _inner(self._held) if self._string else self._held


def _inner(text: str) -> str:
    """Text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _json(text: str) -> str:
    """A value as JSON: as it is written, or, where that is none, as a string."""
    text = text.strip()
    if text in LITERALS:
        return LITERALS[text]
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN and infinities are no JSON
