"""An answer in no dialect: what each event of the engine adds, with thinking, text and calls of functions apart."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from spoutnik.engine.request import Completion, Event
from spoutnik.serve.backend import Cost
from spoutnik.text.json_call import CallArguments, CallStart
from spoutnik.text.reasoning import ThinkParser
from spoutnik.text.tool_calls import ToolFormat
from spoutnik.text.tool_parsers import Part as ToolPart
from spoutnik.text.trimmed import Trimmed

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Reasoning:
    """More of the thinking."""

    text: str


@dataclass(frozen=True)
class Text:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class ToolStart:
    """The `index`-th call of the answer begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolArguments:
    """More of the `index`-th call's arguments: JSON text, as the model writes it."""

    index: int
    text: str


@dataclass(frozen=True)
class Usage:
    """Tokens and cost of one answer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class End:
    """The answer is complete."""

    finish_reason: FinishReason
    usage: Usage
    completion: Completion
    """What the engine made: tokens and text in which nothing is set apart."""


Part = Reasoning | Text | ToolStart | ToolArguments | End


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class Reader(Protocol):
    """Makes parts of the events of one request."""

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        """What the event adds; of the last one an `End` comes last, with `cost`."""
        ...


class TextReader:
    """Sets nothing apart: for texts that are continued."""

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        parts: list[Part] = [Text(event.text)] if event.text else []
        if (completion := event.completion) is not None:
            reason: FinishReason = "stop" if completion.finish_reason == "stop" else "length"
            parts.append(End(reason, _usage(completion, 0, cost), completion))
        return parts


class AnswerReader:
    """Reads the events of one request. White space around the thinking and next to it is dropped.

    `thinking` is whether the prompt left a `<think>` open, `tools` how calls are written (None: nothing is a call), and `new_id` makes the
    ids of calls.
    """

    def __init__(self, thinking: bool, tools: ToolFormat | None = None, new_id: Callable[[], str] = _call_id):
        self._thoughts, self._new_id = ThinkParser(thinking), new_id
        self._tools = None if tools is None else tools.parser()
        self._reasoning = Trimmed()
        self._thought = self._answering = False
        self._reasoning_tokens = self._calls = 0
        self._name = ""

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        thinking = self._thoughts.thinking
        reasoning, text = self._thoughts.feed(event.text)
        completion = event.completion
        if completion is None:
            self._reasoning_tokens += thinking or self._thoughts.thinking
            return self._parts(reasoning, text)
        more_reasoning, more_text = self._thoughts.close()
        parts = self._parts(reasoning + more_reasoning, text + more_text)
        if self._tools is not None:
            parts += map(self._part, self._tools.close())
        called = self._calls and completion.finish_reason == "stop"
        reason: FinishReason = "tool_calls" if called else "stop" if completion.finish_reason == "stop" else "length"
        return [*parts, End(reason, _usage(completion, self._reasoning_tokens, cost), completion)]

    def _parts(self, reasoning: str, text: str) -> list[Part]:
        parts: list[Part] = []
        self._thought = self._thought or bool(reasoning)
        if thought := self._reasoning.feed(reasoning):
            parts.append(Reasoning(thought))
        if self._thought and not self._answering:
            text = text.lstrip()
        if text:
            self._answering = True
            parts += [Text(text)] if self._tools is None else map(self._part, self._tools.feed(text))
        return parts

    def _part(self, part: ToolPart) -> Part:
        if isinstance(part, CallStart):
            self._calls += 1
            return ToolStart(self._calls - 1, self._new_id(), part.name)
        if isinstance(part, CallArguments):
            return ToolArguments(self._calls - 1, part.text)
        return Text(part.text)


def _usage(completion: Completion, reasoning_tokens: int, cost: Cost | None) -> Usage:
    return Usage(completion.prompt_tokens, completion.cached_tokens, len(completion.token_ids), reasoning_tokens, cost or Cost())
