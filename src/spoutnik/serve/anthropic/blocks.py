"""An answer as blocks of content, and the events that tell of them as they grow."""

from typing import Any

from pydantic_core import from_json

from spoutnik.serve.answer import Part, Reasoning, Text, ToolArguments, ToolStart
from spoutnik.serve.carried import carry

Event = dict[str, Any]


class Blocks:
    """Takes an answer's parts; at most the last block is open. With `omit`, thinking is not told, but carried in its signature."""

    def __init__(self, omit: bool = False):
        self.finished: list[dict[str, Any]] = []
        """Blocks that are complete."""
        self._omit = omit
        self._open: str | None = None  # the type of the block that grows
        self._head: dict[str, Any] = {}
        self._text = ""

    def add(self, part: Part) -> list[Event]:
        """What the part changes."""
        if isinstance(part, Reasoning):
            events = self._in("thinking", {"thinking": "", "signature": ""})
            return events + self._grow(part.text, "thinking_delta", "thinking", told=not self._omit)
        if isinstance(part, Text):
            return self._in("text", {"text": "", "citations": None}) + self._grow(part.text, "text_delta", "text")
        if isinstance(part, ToolStart):
            call = {"id": f"toolu_{part.id.removeprefix('call_')}", "name": part.name, "input": {}}
            return self.close() + self._in("tool_use", call)
        if isinstance(part, ToolArguments):
            return self._grow(part.text, "input_json_delta", "partial_json")
        return []

    def close(self) -> list[Event]:
        """Completes the open block, if there is one."""
        if self._open is None:
            return []
        events: list[Event] = []
        index, kind = len(self.finished), self._open
        filled: dict[str, Any] = {"text": self._text}
        if kind == "thinking":
            filled = {"thinking": "" if self._omit else self._text, "signature": carry(self._text if self._omit else "")}
            events.append(_delta(index, {"type": "signature_delta", "signature": filled["signature"]}))
        elif kind == "tool_use":
            filled = {"input": _input(self._text)}
        self.finished.append({**self._head, **filled})
        self._open = None
        return [*events, {"type": "content_block_stop", "index": index}]

    def _in(self, kind: str, fields: dict[str, Any]) -> list[Event]:
        """Makes sure that a block of this kind is open."""
        if self._open == kind:
            return []
        closed = self.close()
        self._open, self._head, self._text = kind, {"type": kind, **fields}, ""
        return [*closed, {"type": "content_block_start", "index": len(self.finished), "content_block": self._head}]

    def _grow(self, text: str, kind: str, field: str, told: bool = True) -> list[Event]:
        self._text += text
        return [_delta(len(self.finished), {"type": kind, field: text})] if told else []


def _delta(index: int, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as an object: as far as they go, where the answer ended within them."""
    try:
        value = from_json(arguments, allow_partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
