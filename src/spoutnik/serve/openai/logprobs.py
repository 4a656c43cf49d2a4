"""Log-probabilities as /chat/completions and /completions write them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from spoutnik.engine.request import Top
from spoutnik.serve.answer import Likelihood
from spoutnik.text.token_bytes import TokenBytes


def chat_logprobs(likelihoods: Sequence[Likelihood], token_bytes: TokenBytes) -> dict[str, Any]:
    """{"content": [...], "reasoning_content": [...]}: tokens of the answer, and DeepSeek's list of those of the thinking."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes.of(token_id)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    def entries(reasoning: bool) -> list[dict[str, Any]]:
        own = [one for one in likelihoods if one.reasoning == reasoning]
        return [entry(one.token_id, one.logprob) | {"top_logprobs": [entry(*other) for other in one.top]} for one in own]

    return {"content": entries(False), "refusal": None, "reasoning_content": entries(True) or None}


@dataclass
class TextLogprobs:
    """The older shape: four lists of equal length. `offset` is where the next token begins in the text."""

    token_bytes: TokenBytes
    offset: int = 0
    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def add(self, token_id: int, logprob: float | None, top: Top) -> None:
        """Takes a token; the first one of a text has no log-probability, for nothing precedes it."""
        raw = self.token_bytes.of(token_id)
        self.tokens.append(_name(raw))
        self.token_logprobs.append(logprob)
        tops = {_name(self.token_bytes.of(other)): value for other, value in top}
        self.top_logprobs.append(None if logprob is None else tops | {_name(raw): logprob})
        self.text_offset.append(self.offset)
        self.offset += len(raw.decode("utf-8", "replace"))

    def take(self) -> dict[str, Any]:
        """What was added since the last call."""
        taken = {
            "tokens": self.tokens, "token_logprobs": self.token_logprobs, "top_logprobs": self.top_logprobs, "text_offset": self.text_offset
        }  # fmt: skip
        self.tokens, self.token_logprobs, self.top_logprobs, self.text_offset = [], [], [], []
        return taken


def _name(raw: bytes) -> str:
    """A token as a string: parts of characters are told apart by their bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
