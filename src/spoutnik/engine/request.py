"""What goes into the engine and what comes out of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from spoutnik.errors import UserError

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it. Faulty values raise UserError when the request is made."""

    prompt_ids: Sequence[int]
    max_new_tokens: int = 256
    """Most tokens to produce; fewer if the model's context ends before."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = 1.0
    """Draw only from the fewest tokens that hold this much probability (arXiv 1904.09751); 1 draws from all."""
    top_k: int = 0
    """Draw only from the k most likely tokens, applied before top_p; 0 draws from all."""
    stop: tuple[str, ...] = ()
    """Generation ends, and the text with it, before the first of these strings."""
    seed: int = 0
    """Every drawn token is a function of the logits, this number and the token's position, whatever runs beside it."""
    stream: bool = False
    """Whether every token is reported by an event, not only the end."""
    owner: str = ""
    """On whose behalf this is: what is cached of one owner's prompts is never used, nor its use to be noticed, by another."""
    adapter: str = ""
    """The name of a loaded adapter that answers; without one the base model does."""

    def __post_init__(self) -> None:
        _require(len(self.prompt_ids) > 0, "prompt_ids", "empty", "hold at least one token, for instance the beginning-of-sequence token")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "be 1 or more")
        _require(math.isfinite(self.temperature) and self.temperature >= 0, "temperature", self.temperature, "be 0 (greedy) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "be above 0 and at most 1")
        _require(self.top_k >= 0, "top_k", self.top_k, "be 0 (off) or more")
        _require(all(self.stop), "stop", self.stop, "hold no empty string")


@dataclass(frozen=True)
class Completion:
    """The continuation of one prompt."""

    text: str
    """Without the end-of-sequence token or the stop string; other special tokens are kept as they are written."""
    token_ids: list[int]
    """Every token that was produced, also the one that ended the text."""
    logprobs: list[float]
    """Natural logarithm of each token's probability at the request's temperature (at 1 when it is 0), before top_k and top_p."""
    finish_reason: FinishReason
    reasoning: str | None = None
    """The thinking, where the caller asked for it apart; `text` is then the answer alone."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of these, the ones that were not computed for this request: found in memory or on disk, in whole pages, or computed together with an
    equal prompt of the same owner. The torch modules keep nothing and report 0."""
    drafted_tokens: int = field(default=0, compare=False)
    accepted_tokens: int = field(default=0, compare=False)
    """Tokens that the model guessed before they were drawn, and those of them that were right. They tell of speed alone, and depend on it:
    two equal completions may differ in them."""


@dataclass(frozen=True)
class Event:
    """News of one request from one step of the engine."""

    request_id: int
    text: str
    """New text of a streamed request; may be empty while a character or a possible stop string is incomplete."""
    completion: Completion | None
    """Set in the request's last event."""


def _require(condition: bool, name: str, found: object, rule: str) -> None:
    if not condition:
        raise UserError(f"{name} is {found!r}; it must {rule}.")
