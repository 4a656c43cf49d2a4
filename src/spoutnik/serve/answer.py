"""An answer in no dialect: what each event of the engine adds, with thinking, text and calls of functions apart."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from spoutnik.engine.request import Completion, Event, Top
from spoutnik.serve.backend import Cost, Usage
from spoutnik.serve.errors import InvalidRequestError
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
class Likelihood:
    """A token that was drawn, where its probability was asked for. It precedes the text that it completes."""

    token_id: int
    logprob: float
    top: Top
    """The likeliest tokens of its place, as many as were asked for."""
    reasoning: bool
    """Whether it is of the thinking."""


@dataclass(frozen=True)
class End:
    """The answer is complete."""

    finish_reason: FinishReason
    usage: Usage
    stop_string: str | None = None
    """Which of the request's stop strings ended it, if one did."""


Part = Reasoning | Text | ToolStart | ToolArguments | Likelihood | End


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class Reader(Protocol):
    """Makes parts of the events of one request."""

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        """What the event adds; of the last one an `End` comes last, with `cost`."""
        ...


class TextReader:
    """Sets nothing apart: for texts that are continued. With `logprobs`, every token is told, too."""

    def __init__(self, logprobs: bool = False):
        self._logprobs = logprobs

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        parts = _likelihoods(event, False) if self._logprobs else []
        if event.text:
            parts.append(Text(event.text))
        if event.completion is not None:
            parts.append(_end(event.completion, False, 0, cost))
        return parts


class AnswerReader:
    """Reads the events of one request. White space around the thinking and next to it is dropped.

    `thinking` is whether the prompt left a `<think>` open, `tools` how calls are written (None: nothing is a call), and `new_id` makes the
    ids of calls. With `logprobs`, every token is told, too.
    """

    def __init__(
        self, thinking: bool, tools: ToolFormat | None = None, logprobs: bool = False, new_id: Callable[[], str] = _call_id
    ):  # fmt: skip
        self._thoughts, self._logprobs, self._new_id = ThinkParser(thinking), logprobs, new_id
        self._tools = None if tools is None else tools.parser()
        self._reasoning = Trimmed()
        self._thought = self._answering = False
        self._reasoning_tokens = self._calls = 0

    def read(self, event: Event, cost: Cost | None = None) -> list[Part]:
        thinking = self._thoughts.thinking
        reasoning, text = self._thoughts.feed(event.text)
        thinking = thinking or self._thoughts.thinking
        self._reasoning_tokens += thinking * len(event.tokens)
        parts = _likelihoods(event, thinking) if self._logprobs else []
        if event.completion is None:
            return parts + self._parts(reasoning, text)
        more_reasoning, more_text = self._thoughts.close()
        parts += self._parts(reasoning + more_reasoning, text + more_text)
        if self._tools is not None:
            parts += map(self._part, self._tools.close())
        return [*parts, _end(event.completion, self._calls > 0, self._reasoning_tokens, cost)]

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


def _likelihoods(event: Event, reasoning: bool) -> list[Part]:
    tops = event.top_logprobs or [[] for _ in event.tokens]
    return [Likelihood(*drawn, reasoning) for drawn in zip(event.tokens, event.logprobs, tops, strict=True)]


def _end(completion: Completion, called: bool, reasoning_tokens: int, cost: Cost | None) -> End:
    """Raises InvalidRequestError where the answer's constraint failed."""
    if completion.error is not None:
        raise InvalidRequestError(completion.error)
    whole = completion.finish_reason == "stop"
    usage = Usage(completion.prompt_tokens, completion.cached_tokens, len(completion.token_ids), reasoning_tokens, cost or Cost())
    return End("tool_calls" if whole and called else "stop" if whole else "length", usage, completion.stop_string)
