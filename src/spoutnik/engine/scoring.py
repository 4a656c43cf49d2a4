"""Log-probabilities of tokens that are given: what a model makes of a text that is already there.

The kernels score with the operations that sample (kernels/scoring.py), so what they say of a sampled token is what the sampler said of it,
to the bit. The torch modules here score in one pass without a cache, which agrees with their sampler up to rounding only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.request import Top
from spoutnik.engine.scheduler import prefill_groups
from spoutnik.engine.steering import likeliest
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

PASS_TOKENS = 4096
"""Most token cells of one pass of the modules, unless one sequence alone is longer."""
HEAD_ROWS = 256
"""Most rows whose logits the modules hold at a time."""


@dataclass(frozen=True)
class Given:
    """A sequence whose tokens after the first `prompt_tokens` are scored, each given all that precede it."""

    token_ids: Sequence[int]
    prompt_tokens: int
    owner: str = ""
    """Whose cache is used, as in `Request`."""
    adapter: str = ""
    """As in `Request`."""


@dataclass(frozen=True)
class Scored:
    """What the model says of a sequence's tokens after its prompt."""

    logprobs: list[float]
    top_logprobs: list[Top]
    """The likeliest tokens of each place, where asked for."""

    def is_greedy(self, token_ids: Sequence[int]) -> bool:
        """Whether these are the likeliest tokens throughout, as greedy decoding would choose; needs `top_logprobs`."""
        return [top[0][0] for top in self.top_logprobs] == list(token_ids)


def check_given(given: Sequence[Given], temperature: float, max_length: int, vocab_size: int) -> None:
    """Raises UserError where a sequence cannot be scored."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature!r}; it must be 0 (scored as 1) or more.")
    for one in given:
        length = len(one.token_ids)
        if not 1 <= one.prompt_tokens <= length:
            raise UserError(
                f"prompt_tokens is {one.prompt_tokens} for a sequence of {length} tokens; it must be 1 or more, for nothing precedes the "
                "first token, and at most the whole sequence."
            )
        if length > max_length:
            raise UserError(f"A sequence to be scored has {length} tokens, but the context holds {max_length}; shorten it.")
        least, most = min(one.token_ids), max(one.token_ids)
        if not 0 <= least <= most < vocab_size:
            raise UserError(f"token_ids holds {least} to {most}, but the model has {vocab_size} tokens from 0; use its own tokenizer.")


def not_finite() -> UserError:
    """The error of logits that hold NaN or infinity."""
    return UserError("The model's logits are not finite, so no token can be scored; check its weights for NaN or infinity.")


def score_with_modules(model: CausalLM, given: Sequence[Given], temperature: float, top_logprobs: int) -> list[Scored]:
    """Log-probabilities by the torch modules, in groups of like length padded on the right. Logits with NaN or +inf raise UserError."""
    device = model.lm_head.weight.device
    found = [Scored([], []) for _ in given]
    wanted = [index for index, one in enumerate(given) if one.prompt_tokens < len(one.token_ids)]
    for group in prefill_groups([len(given[index].token_ids) - 1 for index in wanted], PASS_TOKENS):
        chosen = [given[wanted[place]] for place in group]
        longest = len(chosen[0].token_ids) - 1
        ids_BT = torch.tensor([[*one.token_ids[:-1], *[0] * (longest + 1 - len(one.token_ids))] for one in chosen], device=device)
        hidden_BTD = model.hidden(ids_BT)
        for row, (place, one) in enumerate(zip(group, chosen, strict=True)):
            hidden_ND = hidden_BTD[row, one.prompt_tokens - 1 : len(one.token_ids) - 1]
            targets_N = torch.tensor(one.token_ids[one.prompt_tokens :], device=device)
            for part, targets in zip(hidden_ND.split(HEAD_ROWS), targets_N.split(HEAD_ROWS), strict=True):
                _score(model.head(part), targets, temperature, top_logprobs, found[wanted[place]])
    return found


def _score(logits_NV: Tensor, targets_N: Tensor, temperature: float, top_logprobs: int, scored: Scored) -> None:
    """Adds what is said of these places."""
    logprobs_NV = (logits_NV / (temperature or 1.0)).log_softmax(-1)
    logprobs_N = logprobs_NV.gather(-1, targets_N[:, None]).squeeze(-1)
    if bool(logprobs_N.isnan().any()):
        raise not_finite()
    scored.logprobs.extend(logprobs_N.tolist())
    if top_logprobs:
        rows = zip(logits_NV.cpu().numpy(), logprobs_NV.cpu().numpy(), strict=True)
        scored.top_logprobs.extend(likeliest(*row, top_logprobs) for row in rows)
