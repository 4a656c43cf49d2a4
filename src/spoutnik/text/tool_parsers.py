"""Parsers of function calls, one for each way of writing them (see `tool_calls.py`).

All work character by character, so how a text is cut into pieces changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spoutnik.text.json_call import SPACE, ArgumentsReader, CallArguments, CallPart, CallReader, CallStart

HERMES, HERMES_END = "<tool_call>", "</tool_call>"
MISTRAL = "[TOOL_CALLS]"
SECTION, SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
FENCE = "```json\n"
PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True)
class Content:
    """Text that is no call."""

    text: str


Part = Content | CallStart | CallArguments


class ToolParser(Protocol):
    """Takes an answer in pieces and returns what became certain."""

    def feed(self, text: str) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class Inside(Protocol):
    """Reads what stands between the brackets; `raw` is what a caller is shown if no call came of it."""

    raw: str

    @property
    def started(self) -> bool: ...

    @property
    def quoted(self) -> bool:
        """Whether a JSON string is open, in which a closing mark is none."""
        ...

    def feed(self, character: str) -> list[CallPart]: ...

    def close(self) -> list[CallPart]: ...


class Bracketed:
    """Calls between an opening and a closing mark, the latter perhaps missing at the end."""

    def __init__(self, opening: str, closing: str, inside: Callable[[], Inside]):
        self._opening, self._closing, self._make = opening, closing, inside
        self._inside: Inside | None = None
        self._held = ""  # outside: white space and what may be the opening; inside: what may be the closing
        self._after = False  # whether a call has just ended: white space after it is dropped

    def feed(self, text: str) -> list[Part]:
        parts: list[Part] = []
        for character in text:
            parts += self._within(character) if self._inside is not None else self._without(character)
        return _joined(parts)

    def close(self) -> list[Part]:
        if self._inside is None:
            held, self._held = self._held, ""
            return [Content(held)] if held and not (self._after and not held.strip(SPACE)) else []
        parts: list[Part] = [part for character in self._held for part in self._inside.feed(character)]
        self._held = ""
        return _joined(parts + self._leave(whole=False))

    def _without(self, character: str) -> list[Part]:
        self._held += character
        mark = self._held.lstrip(SPACE) if self._after else self._held[len(self._held) - self._overlap() :]
        if self._after:
            if not mark:
                return []
            if self._opening.startswith(mark):
                if mark == self._opening:
                    self._enter()
                return []
            self._after = False
        if mark == self._opening:
            before = self._held[: -len(mark)].rstrip(SPACE)
            self._enter()
            return [Content(before)] if before else []
        keep = len(self._held[: len(self._held) - self._overlap(strict=True)].rstrip(SPACE))
        out, self._held = self._held[:keep], self._held[keep:]
        return [Content(out)] if out else []

    def _overlap(self, strict: bool = False) -> int:
        """Length of the longest end of what is held that begins the opening mark."""
        longest = min(len(self._held), len(self._opening) - strict)
        return next((size for size in range(longest, 0, -1) if self._opening.startswith(self._held[-size:])), 0)

    def _enter(self) -> None:
        self._inside, self._held, self._after = self._make(), "", False

    def _within(self, character: str) -> list[Part]:
        assert self._inside is not None
        self._held += character
        parts: list[Part] = []
        while self._held and (self._inside.quoted or not self._closing.startswith(self._held)):
            parts += self._inside.feed(self._held[0])
            self._held = self._held[1:]
        if self._closing and self._held == self._closing:
            self._held = ""
            parts += self._leave(whole=True)
        return parts

    def _leave(self, whole: bool) -> list[Part]:
        assert self._inside is not None
        inside, self._inside = self._inside, None
        parts: list[Part] = list(inside.close())
        if inside.started or parts:
            self._after = True
            return parts
        return [Content(self._opening + inside.raw + (self._closing if whole else ""))]


class Single:
    """One object."""

    def __init__(self) -> None:
        self._reader = CallReader()
        self.raw = ""

    @property
    def started(self) -> bool:
        return self._reader.started

    @property
    def quoted(self) -> bool:
        return self._reader.quoted

    def feed(self, character: str) -> list[CallPart]:
        self.raw += character
        return [] if self._reader.done or self._reader.broken else self._reader.feed(character)

    def close(self) -> list[CallPart]:
        return self._reader.close()


class List:
    """Objects in an array, or one after the other."""

    def __init__(self) -> None:
        self._reader = CallReader()
        self.raw = ""
        self.started = False

    @property
    def broken(self) -> bool:
        """Whether the current object is no call."""
        return self._reader.broken

    @property
    def quoted(self) -> bool:
        return self._reader.quoted

    def feed(self, character: str) -> list[CallPart]:
        self.raw += character
        if self._reader.broken or (not self._reader.raw and character in SPACE + "[],;"):
            return []
        parts = self._reader.feed(character)
        self.started = self.started or self._reader.started
        if self._reader.done and not self._reader.broken:
            self._reader = CallReader()
        return parts

    def close(self) -> list[CallPart]:
        return self._reader.close()


class Section:
    """DeepSeek-V3.1: the name, a separator, the arguments."""

    def __init__(self) -> None:
        self.raw = ""
        self.started = False
        self._head: str | None = ""  # None while arguments are read
        self._arguments = ArgumentsReader()

    @property
    def quoted(self) -> bool:
        return self._head is None and self._arguments.quoted

    def feed(self, character: str) -> list[CallPart]:
        self.raw += character
        if self._head is not None:
            self._head += character
            name = self._name(self._head.replace(CALL_END, "").partition(CALL)[2])
            if name is None:
                return []
            self.started, self._head, self._arguments = True, None, ArgumentsReader()
            return [CallStart(name)]
        parts = self._arguments.feed(character)
        if self._arguments.done:
            self._head = ""
        return parts

    def close(self) -> list[CallPart]:
        return []

    def _name(self, head: str) -> str | None:
        """The function's name, once the head is complete."""
        return head.removesuffix(SEPARATOR).strip(SPACE) if head.endswith(SEPARATOR) else None


class FencedSection(Section):
    """DeepSeek-V3 and R1: the kind, a separator, the name, and the arguments in a code block."""

    def _name(self, head: str) -> str | None:
        _kind, separator, name = head.partition(SEPARATOR)
        return name.removesuffix(FENCE).strip(SPACE) if separator and name.endswith(FENCE) else None


class Whole:
    """Llama: an answer that is a call from its first character on, or none. Several calls follow each other, with semicolons between."""

    def __init__(self) -> None:
        self._inside = List()
        self._held = ""
        self._decided: bool | None = None

    def feed(self, text: str) -> list[Part]:
        parts: list[Part] = []
        for character in text:
            if self._decided is None:
                self._held += character
                start = self._held.lstrip(SPACE)
                if PYTHON_TAG.startswith(start):
                    continue
                start = start.removeprefix(PYTHON_TAG).lstrip(SPACE)
                if not start:
                    continue
                self._decided = start == "{"
                if self._decided:
                    parts += self._inside.feed("{")
                else:
                    parts.append(Content(self._held))
            elif self._decided:
                parts += self._inside.feed(character)
                if not self._inside.started and self._inside.broken:
                    self._decided = False
                    parts.append(Content(self._held[:-1] + self._inside.raw))
            else:
                parts.append(Content(character))
        return _joined(parts)

    def close(self) -> list[Part]:
        if self._decided is None:
            return [Content(self._held)] if self._held else []
        if not self._decided:
            return []
        parts: list[Part] = list(self._inside.close())
        return parts if self._inside.started else [Content(self._held[:-1] + self._inside.raw)]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Neighbours of one kind as one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Content) and isinstance(last, Content):
            joined[-1] = Content(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            joined[-1] = CallArguments(last.text + part.text)
        else:
            joined.append(part)
    return joined
