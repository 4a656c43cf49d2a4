"""Answers that must have a shape: llguidance says which tokens may follow, from the end of the thinking on."""

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from spoutnik.engine.detokenizer import Detokenizer
from spoutnik.errors import UserError
from spoutnik.serve.backend import Shape
from spoutnik.text.reasoning import ThinkParser
from spoutnik.text.tokenizer import Tokenizer

LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000, "step_lexer_fuel": 200_000, "step_max_items": 50_000, "max_items_in_row": 2_000,
    "max_lexer_states": 50_000, "max_grammar_size": 100_000, "verbose_errors": False,
}  # fmt: skip
"""What a grammar may take, as llguidance counts: to be read, for each token, and in all. Its regular expressions take linear time. The
worst schemas that we found took 41 ms for a token within these bounds, of the engine's thread.
"""
KEPT = 16
"""Grammars that are remembered, for several answers of one request and for requests that repeat."""


class Grammars:
    """Makes constraints for one tokenizer. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._known: LLTokenizer | None = None
        self._matchers: OrderedDict[str, LLMatcher] = OrderedDict()

    def constraint(self, shape: Shape) -> "GrammarConstraint":
        """For one answer. Raises UserError where the grammar is faulty, too large, or such that nothing can be written by it."""
        with self._lock:
            matcher = self._matchers.get(shape.lark)
        if matcher is None:
            matcher = self._compiled(shape.lark)
        with self._lock:
            self._matchers[shape.lark] = matcher
            self._matchers.move_to_end(shape.lark)
            if len(self._matchers) > KEPT:
                self._matchers.popitem(last=False)
            return GrammarConstraint(matcher.deep_copy(), self._tokenizer, shape.thinking)

    def _compiled(self, lark: str) -> LLMatcher:
        matcher = LLMatcher(self._vocabulary(), LLMatcher.grammar_from_lark(lark), log_level=0, limits=LLParserLimits(**LIMITS))
        if not matcher.is_error():
            # The first mask is worked out here, not in the engine's thread; and there is none where a schema refers to itself without end.
            matcher.compute_bitmask()
        if matcher.is_error():
            reason = next(iter(matcher.get_error().splitlines()), "it ends nowhere")
            raise UserError(f"The wanted shape cannot be kept to ({reason}); simplify the schema.")
        return matcher

    def _vocabulary(self) -> LLTokenizer:
        """Made once, when first needed: it takes about a second for a large vocabulary."""
        with self._lock:
            if self._known is None:
                tokenizer = self._tokenizer
                self._known = LLTokenizer(
                    tokenizer.backend.to_str(), n_vocab=tokenizer.vocab_size, eos_token=sorted(tokenizer.eos_token_ids)
                )
            return self._known


class GrammarConstraint:
    """An engine's `Constraint`: anything but an end while the model thinks, then what the grammar allows."""

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer, thinking: bool):
        self._matcher, self._thoughts = matcher, ThinkParser(thinking) if thinking else None
        self._tokenizer, self._text = tokenizer, Detokenizer(tokenizer.decode)
        self._no_end = _all_but(tokenizer.eos_token_ids, tokenizer.vocab_size)

    @property
    def finished(self) -> bool:
        return self._thoughts is None and bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.uint32] | None:
        if self._thoughts is not None:
            return self._no_end
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        return mask

    def advance(self, token: int) -> None:
        if self._thoughts is None:
            self._matcher.consume_token(token)
            self._check()
            return
        _, answer = self._thoughts.feed(self._text.feed(token))
        if not self._thoughts.thinking:
            self._thoughts = None
            # The token that closes the thinking may hold the answer's beginning, too.
            self._matcher.consume_tokens(self._tokenizer.encode(answer.strip()))
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UserError("The wanted shape became too complex to be kept to; simplify the schema.")


def _all_but(tokens: Collection[int], vocab_size: int) -> NDArray[np.uint32]:
    """[ceil(vocab / 32)] a bit for every token that is not among `tokens`."""
    bits = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    bits[:vocab_size] = 1
    bits[list(tokens)] = 0
    return np.packbits(bits, bitorder="little").view(np.uint32)
