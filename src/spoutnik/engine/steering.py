"""What a request changes about its distribution beyond temperature, top_k and top_p. NumPy only: both runners draw from what this makes.

The order is penalties, bias, constraint, min_p; then the sampler's own temperature, top_k and top_p. What is reported of a token is the
model's distribution as it was before all of this.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spoutnik.engine.budget import Budget
from spoutnik.engine.request import Request, Top
from spoutnik.errors import UserError

Floats = NDArray[np.float32]


class Steering:
    """Follows one request, token by token. `decode` makes text of tokens, for budgets of thinking and answer."""

    def __init__(self, request: Request, vocab_size: int, decode: Callable[[Sequence[int]], str]):
        self.request = request
        self.mask: NDArray[np.uint32] | None = None
        """[ceil(vocab / 32)] which tokens may come next; None for all"""
        self._vocab_size = vocab_size
        self._asked = False
        bounded = request.thinking_budget is not None or request.max_answer_tokens is not None
        self._budget = Budget(request, decode) if bounded else None
        self._counts_answer = request.presence_penalty != 0 or request.frequency_penalty != 0 or request.repetition_penalty != 1
        prompt = set(request.prompt_ids) if request.repetition_penalty != 1 else set[int]()
        touched = sorted(prompt | set(request.logit_bias))
        self._place = {token: place for place, token in enumerate(touched)}
        self._touched = np.array(touched, dtype=np.int32)
        self._repeated = np.array([token in prompt for token in touched], dtype=bool)
        self._counts = np.zeros(len(touched), np.float32)
        self._bias = np.array([request.logit_bias.get(token, 0.0) for token in touched], dtype=np.float32)
        for token in request.begun.token_ids:
            self.take(token)

    @property
    def forced(self) -> int | None:
        """The token that comes next whatever the model says."""
        return None if self._budget is None else self._budget.forced

    @property
    def margin(self) -> float:
        """min_p as a distance of logits from the highest one, 0 or below; -inf for none."""
        request = self.request
        return request.temperature * math.log(request.min_p) if request.min_p and request.temperature else -math.inf

    def prepare(self) -> None:
        """Finds out what may come next, once for each token. UserError where the constraint fails."""
        if self._asked or self.request.constraint is None:
            return
        words = self.request.constraint.allowed()
        self.mask, self._asked = None if words is None else self._fitted(words), True

    def _fitted(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        mask = np.zeros(-(-self._vocab_size // 32), np.uint32)
        mask[: len(words)] = words[: len(mask)]
        mask[-1] &= np.uint32(0xFFFFFFFF >> -self._vocab_size % 32)
        if not mask.any():
            raise UserError("The constraint allows no token that the model has; loosen it, or use the model's own tokenizer.")
        return mask

    def changes(self, logits_V: Floats) -> tuple[NDArray[np.int32], Floats]:
        """Tokens whose logits penalties and bias change, each once, and what those become."""
        request, values = self.request, logits_V[self._touched]
        if request.repetition_penalty != 1:
            penalty = np.float32(request.repetition_penalty)
            values = np.where(self._repeated, np.where(values > 0, values / penalty, values * penalty), values)
        present = self._counts > 0
        values = values - self._counts * np.float32(request.frequency_penalty) - present * np.float32(request.presence_penalty)
        return self._touched, values + self._bias

    def edit(self, logits_V: Floats) -> Floats:
        """The logits to draw from, a new array."""
        edited = logits_V.copy()
        tokens, values = self.changes(logits_V)
        edited[tokens] = values
        if self.mask is not None:
            bits = np.unpackbits(self.mask.view(np.uint8), bitorder="little")[: len(edited)]
            edited[bits == 0] = -np.inf
        if self.margin > -math.inf:
            edited[edited < edited.max() + np.float32(self.margin)] = -np.inf
        return edited

    def take(self, token: int) -> None:
        """The next token, not of those that end a sequence. UserError where the constraint fails."""
        if self._budget is not None:
            self._budget.take(token)
        if self._counts_answer:
            self._count(token)
        if self.request.constraint is not None:
            self._asked = False
            self.request.constraint.advance(token)

    @property
    def finished(self) -> bool:
        """Whether the constraint is satisfied and nothing may follow."""
        return self.request.constraint is not None and self.request.constraint.finished

    @property
    def spent(self) -> bool:
        """Whether the answer has all the tokens that it may have."""
        return self._budget is not None and self._budget.spent

    def _count(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._touched):
            self._touched = np.append(self._touched, np.int32(token))
            self._repeated, self._counts = np.append(self._repeated, True), np.append(self._counts, np.float32(0))
            self._bias = np.append(self._bias, np.float32(0))
        self._repeated[place] = True
        self._counts[place] += 1


def likeliest(logits_V: Floats, logprobs_V: Floats, count: int) -> Top:
    """The `count` likeliest tokens; of those with equal logits the ones with smaller ids."""
    count = min(count, len(logits_V))
    least = np.partition(logits_V, -count)[-count]
    tokens = np.flatnonzero(logits_V >= least)
    tokens = tokens[np.argsort(-logits_V[tokens], kind="stable")][:count]
    return list(zip(tokens.tolist(), logprobs_V[tokens].tolist(), strict=True))
