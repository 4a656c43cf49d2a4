"""What goes into the engine and what comes out of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from spoutnik.engine.constraint import Constraint
from spoutnik.errors import UserError

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""stop: an end-of-sequence token, a stop string, or a constraint that is satisfied; length: no room for more; error: the request's
constraint failed, and `Completion.error` says how."""
MOST_TOP_LOGPROBS = 20
Top = list[tuple[int, float]]
"""The likeliest tokens of one place and their log-probabilities, likeliest first, the smaller id first where they are equal."""


@dataclass(frozen=True)
class Begun:
    """What another engine with the same weights drew of an answer before it was lost: tokens, and what was said of each."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[Top, ...] = ()


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
    min_p: float = 0.0
    """Draw only tokens that are at least this share as likely as the likeliest one (arXiv 2407.01082), before top_k and top_p."""
    presence_penalty: float = 0.0
    """Taken once from the logit of every token that the answer holds (OpenAI API reference, "frequency and presence penalties")."""
    frequency_penalty: float = 0.0
    """Taken from the logit of a token for every time that the answer holds it (ibid.)."""
    repetition_penalty: float = 1.0
    """Divides a positive logit, or multiplies a negative one, of every token in prompt or answer (CTRL, arXiv 1909.05858)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to these tokens' logits, after the penalties."""
    top_logprobs: int = 0
    """How many of the likeliest tokens are reported of each place, 20 at most."""
    constraint: Constraint | None = None
    """Says which tokens may follow. It follows this request alone."""
    thinking_budget: int | None = None
    """When so many tokens were produced and the thinking is open, `thinking_end` is forced, once; then the answer goes on freely."""
    thinking_end: tuple[int, ...] = ()
    """The tokens that close the thinking."""
    max_answer_tokens: int | None = None
    """Most tokens outside the thinking; `max_new_tokens` bounds both together."""
    begun: Begun = field(default_factory=Begun)
    """The answer's first tokens, where it goes on: the rest, and the completion, are those of an answer that was never interrupted.
    Events report the rest alone. The constraint is a new one; it is told of these tokens first."""

    def __post_init__(self) -> None:
        _require(len(self.prompt_ids) > 0, "prompt_ids", "empty", "hold at least one token, for instance the beginning-of-sequence token")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "be 1 or more")
        _require(math.isfinite(self.temperature) and self.temperature >= 0, "temperature", self.temperature, "be 0 (greedy) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "be above 0 and at most 1")
        _require(self.top_k >= 0, "top_k", self.top_k, "be 0 (off) or more")
        _require(all(self.stop), "stop", self.stop, "hold no empty string")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "be 0 (off) to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            _require(abs(getattr(self, name)) <= 2, name, getattr(self, name), "be -2 to 2")
        _require(0.01 <= self.repetition_penalty <= 100, "repetition_penalty", self.repetition_penalty, "be 0.01 to 100; 1 is off")
        _require(all(abs(bias) <= 100 for bias in self.logit_bias.values()), "logit_bias", self.logit_bias, "hold numbers from -100 to 100")
        _require(0 <= self.top_logprobs <= MOST_TOP_LOGPROBS, "top_logprobs", self.top_logprobs, f"be 0 to {MOST_TOP_LOGPROBS}")
        if self.thinking_budget is not None:
            _require(self.thinking_budget >= 0, "thinking_budget", self.thinking_budget, "be 0 or more, or None")
            _require(len(self.thinking_end) > 0, "thinking_end", self.thinking_end, "hold the tokens that close the thinking")
        if self.max_answer_tokens is not None:
            _require(self.max_answer_tokens >= 1, "max_answer_tokens", self.max_answer_tokens, "be 1 or more, or None")
        most = f"hold fewer tokens than max_new_tokens, {self.max_new_tokens}"
        _require(len(self.begun.token_ids) < self.max_new_tokens, "begun", self.begun.token_ids, most)

    @property
    def steered(self) -> bool:
        """Whether more is asked for than temperature, top_p and top_k: such a request's tokens are drawn apart."""
        return (
            self.constraint is not None or self.thinking_budget is not None or self.max_answer_tokens is not None or bool(self.logit_bias)
            or (self.min_p, self.presence_penalty, self.frequency_penalty, self.repetition_penalty, self.top_logprobs) != (0, 0, 0, 1, 0)
        )  # fmt: skip


@dataclass(frozen=True)
class Completion:
    """The continuation of one prompt."""

    text: str
    """Without the end-of-sequence token or the stop string; other special tokens are kept as they are written."""
    token_ids: list[int]
    """Every token that was produced, also the one that ended the text."""
    logprobs: list[float]
    """Natural logarithm of each token's probability at the request's temperature (at 1 when it is 0): what the model says, before
    penalties, bias, constraint, min_p, top_k and top_p. Of a forced token, too."""
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
    top_logprobs: list[Top] = field(default_factory=list)
    """Of each token's place, where asked for; of the same distribution as `logprobs`."""
    stop_string: str | None = None
    """Which of the request's stop strings ended the text."""
    error: str | None = None
    """One sentence, where the finish reason is "error"."""


@dataclass(frozen=True)
class Event:
    """News of one request from one step of the engine."""

    request_id: int
    text: str
    """New text of a streamed request; may be empty while a character or a possible stop string is incomplete."""
    completion: Completion | None
    """Set in the request's last event."""
    tokens: list[int] = field(default_factory=list)
    """New tokens of a streamed request; `text` may lag behind them."""
    logprobs: list[float] = field(default_factory=list)
    """Theirs, as in `Completion`."""
    top_logprobs: list[Top] = field(default_factory=list)
    """Theirs, where asked for."""


def _require(condition: bool, name: str, found: object, rule: str) -> None:
    if not condition:
        raise UserError(f"{name} is {found!r}; it must {rule}.")
