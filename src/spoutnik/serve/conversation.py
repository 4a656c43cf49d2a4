"""A request for an answer, in no dialect."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spoutnik.engine.request import Request
from spoutnik.engine.sampler import derive_seed
from spoutnik.serve.settings import Effort

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn, or the result of a tool (`tool_call_id` says of which call)."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    """Whether the arguments of every call must fit the schema."""

    def as_openai(self) -> dict[str, Any]:
        """What chat templates expect."""
        return {"type": "function", "function": {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}}


@dataclass(frozen=True)
class Thinking:
    """Whether to think, and how much. `budget`, in tokens, goes before what `effort` stands for."""

    enabled: bool | None = None
    """None: as the template has it."""
    effort: Effort | None = None
    budget: int | None = None


@dataclass(frozen=True)
class Conversation:
    """What is to be answered."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    tool_name: str | None = None
    """The one function that must be called; `tool_choice` is then "required"."""
    thinking: Thinking = field(default_factory=Thinking)
    continue_last: bool = False
    """The last message is the beginning of the answer, which goes on from there."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer must satisfy."""
    parallel_calls: bool = True
    """Whether an answer that must hold a call may hold several."""


@dataclass(frozen=True)
class Sampling:
    """How to answer; None leaves it to the server. See `engine.request.Request`."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    """Tells every token's probability, and so many of the likeliest ones; None tells nothing."""

    def requests(self, prompt_ids: Sequence[int], **others: Any) -> list[Request]:
        """`n` requests of one prompt, each with a seed of its own."""
        seed = secrets.randbits(63) if self.seed is None else self.seed
        one = Request(
            tuple(prompt_ids), self.max_tokens or 1, 1.0 if self.temperature is None else self.temperature,
            1.0 if self.top_p is None else self.top_p, self.top_k, self.stop, stream=True, min_p=self.min_p,
            presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty, logit_bias=self.logit_bias, top_logprobs=self.logprobs or 0, **others,
        )  # fmt: skip
        return [replace(one, seed=derive_seed(seed, index)) for index in range(self.n)]
