"""What the server needs of whoever computes: one engine in a thread here (`worker.py`), or several elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Protocol, Self

from spoutnik.engine.blocks import Pages
from spoutnik.engine.request import Event, Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Info:
    """What is served."""

    model: str
    """Its name for clients."""
    context: int
    """Most tokens of a prompt and its answer together."""
    created: int
    """Unix time, seconds: when the server took it up."""
    fingerprint: str
    """Changes when answers may: weights, tokenizer or precision."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that answer under names of their own."""


@dataclass(frozen=True)
class Cost:
    """What a request used, its share of steps that served others too; see `costs.py`."""

    cpu_seconds: float = 0.0
    """Processor time of all cores."""
    energy_joules: float = 0.0
    energy_measured: bool = False
    """By the processor's counters, rather than estimated from processor time."""
    money: float = 0.0
    """At the server's configured rates, in its currency."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.cpu_seconds + other.cpu_seconds, self.energy_joules + other.energy_joules,
            self.energy_measured or other.energy_measured, self.money + other.money,
        )  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """Tokens and cost of answers."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Cost = field(default_factory=Cost)


def total(usages: Sequence[Usage], n: int) -> Usage:
    """Of all answers to a request: every `n` of them share a prompt, which counts once."""
    prompts = usages[::n]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts), sum(usage.cached_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages), sum(usage.reasoning_tokens for usage in usages),
        reduce(add, (usage.cost for usage in usages), Cost()),
    )  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What answers may be, as plain data: whoever computes makes a constraint of it for each of them (`grammar.py`)."""

    lark: str
    """A grammar in llguidance's dialect of Lark."""
    thinking: bool
    """Whether the prompt leaves the thinking open: the grammar then begins behind it."""


@dataclass(frozen=True)
class News:
    """An event of one of several requests that were submitted together."""

    index: int
    """Which of them, from 0."""
    event: Event
    cost: Cost = field(default_factory=Cost)
    """The request's cost so far; all of it in its last event."""


@dataclass(frozen=True)
class Load:
    """How busy a backend is."""

    running: int = 0
    waiting: int = 0
    pages: Pages = field(default_factory=Pages)
    """Of the cache; none where torch's modules compute."""
    replicas: int = 1
    """Engines that are ready."""
    losses: int = 0
    """Engines that were lost until now."""
    resumed: int = 0
    """Requests that began on a lost engine and went on elsewhere."""

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.running + other.running, self.waiting + other.waiting, self.pages + other.pages,
            self.replicas + other.replicas, self.losses + other.losses, self.resumed + other.resumed,
        )  # fmt: skip


class Generation(Protocol):
    """What becomes of submitted requests: lists of news, one list a step at most, until each request had its last event."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> list[News]:
        """Raises ApiError if the backend failed."""
        ...

    async def aclose(self) -> None:
        """Cancels what has not ended; may be called at any time, and twice."""
        ...


class Backend(Protocol):
    """Computes. All methods belong to the event loop and never block it."""

    info: Info
    tokenizer: Tokenizer

    async def start(self) -> None:
        """Called once, from the loop that will call everything else."""
        ...

    async def generate(self, requests: Sequence[Request], shape: Shape | None = None) -> Generation:
        """Queues requests together, all or none. Where they are not accepted, mostly `OverloadedError` or `InvalidRequestError` is raised.

        Every token is reported, whatever `Request.stream` says. With a `shape`, all answers have it.
        """
        ...

    async def score(self, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost]:
        """Log-probabilities at temperature 1, as `Engine.score_tops`, and what they cost."""
        ...

    async def embed(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost]:
        """The mean of each prompt's last hidden states, after the final norm, and what they cost."""
        ...

    def load(self) -> Load:
        """How busy it is right now."""
        ...

    async def close(self) -> None:
        """Ends everything, what runs with an error. May be called twice."""
        ...
