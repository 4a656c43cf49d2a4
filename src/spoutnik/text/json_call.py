"""Reads one JSON value of a function call as it is written, character by character, so that how the text is cut changes nothing."""

import json
from dataclasses import dataclass
from typing import Any

SPACE = " \t\r\n"


@dataclass(frozen=True)
class CallStart:
    """A call of the function `name` begins."""

    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of the current call's arguments, JSON text as the model writes it."""

    text: str


CallPart = CallStart | CallArguments


class Nesting:
    """Where in a JSON text one is."""

    def __init__(self) -> None:
        self.depth, self.in_string = 0, False
        self._escaped = False

    def step(self, character: str) -> None:
        """Goes on by one character."""
        if self.in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self.in_string = False
        elif character == '"':
            self.in_string = True
        elif character in "{[":
            self.depth += 1
        elif character in "}]":
            self.depth -= 1


class CallReader:
    """Reads `{"name": ..., "arguments": {...}}`, in any order and with `parameters` for `arguments`; other keys are passed over.

    Arguments are passed on as they are written, from the moment the name is known. `raw` is what was read so far, and `done` whether the
    object has ended; `broken` says that this is no such object.
    """

    def __init__(self) -> None:
        self.raw = ""
        self.done = self.broken = self.started = False
        self._place = Nesting()
        self._token = ""  # of the current key or value
        self._key: str | None = None
        self._arguments = ""  # not passed on yet, for the name is unknown or they are written as a string
        self._given = False  # whether any were passed on

    @property
    def quoted(self) -> bool:
        """Whether a string is open."""
        return not self.broken and self._place.in_string

    def feed(self, character: str) -> list[CallPart]:
        """Takes the next character and returns what became known."""
        self.raw += character
        before = self._place.depth
        if before == 0 and not self.raw.strip(SPACE):
            return []
        if before == 0 and character != "{":
            self.broken = True
            return []
        top = before == 1 and not self._place.in_string
        self._place.step(character)
        if before == 0:
            return []
        if top and character == ":" and self._key is None:
            self._key, self._token = self._text(), ""
            return []
        if top and character in ",}]":
            return self._end_value(last=character != ",")
        if top and character in SPACE and not self._token:
            return []
        self._token += character
        if self._key in ("arguments", "parameters") and self.started and self._token[0] == "{" and (before > 1 or character == "{"):
            self._given = True
            return [CallArguments(character)]
        return []

    def close(self) -> list[CallPart]:
        """The text has ended: of a call that began, what is still held back."""
        if self.done or not self.started:
            return []
        self.done = True
        return self._release()

    def _end_value(self, last: bool) -> list[CallPart]:
        """A comma or the closing brace ends a value, if there is one."""
        parts: list[CallPart] = []
        if self._key == "name":
            name = self._text()
            if name and not self.started:
                self.started = True
                parts.append(CallStart(name))
            else:
                self.broken = not self.started
        elif self._key in ("arguments", "parameters") and not self._given:
            written = self._token.strip(SPACE)
            as_string = self._text() if written.startswith('"') else None
            self._arguments = as_string or ("" if written in ("null", '""') else written)
        self._key, self._token = None, ""
        if self.started:
            parts += self._release(final=last)
        if last:
            self.done, self.broken = True, self.broken or not self.started
        return parts

    def _release(self, final: bool = False) -> list[CallPart]:
        held, self._arguments = self._arguments, ""
        if not held and final and not self._given:
            held = "{}"
        self._given = self._given or bool(held)
        return [CallArguments(held)] if held else []

    def _text(self) -> str | None:
        """The current token as a string, None if it is none."""
        value: Any = None
        try:
            value = json.loads(self._token)
        except ValueError:
            self.broken = self.broken or not self.started
        return value if isinstance(value, str) else None


class ArgumentsReader:
    """Reads the arguments alone, `{...}`, for formats that write the name apart."""

    def __init__(self) -> None:
        self.done = False
        self._place = Nesting()

    @property
    def quoted(self) -> bool:
        """Whether a string is open."""
        return self._place.in_string

    def feed(self, character: str) -> list[CallPart]:
        """Takes the next character; white space before the object is dropped."""
        if self._place.depth == 0 and character != "{":
            return []
        self._place.step(character)
        self.done = self._place.depth == 0
        return [CallArguments(character)]
