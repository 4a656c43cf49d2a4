"""Answers that must have a shape: llguidance says which tokens may follow, from the end of the thinking on."""

import threading
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

LIMITS: dict[str, Any] = {"max_lexer_states": 50_000, "max_grammar_size": 100_000, "verbose_errors": False}
"""What a grammar may take; the rest is llguidance's own. Its regular expressions take linear time."""


class Grammars:
    """Makes constraints for one tokenizer. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._known: LLTokenizer | None = None

    def constraint(self, shape: Shape) -> "GrammarConstraint":
        """For one answer. Raises UserError where the grammar is faulty, or too large."""
        matcher = LLMatcher(self._vocabulary(), LLMatcher.grammar_from_lark(shape.lark), log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise UserError(f"The wanted shape cannot be kept to ({matcher.get_error().splitlines()[0]}); simplify the schema.")
        return GrammarConstraint(matcher, self._tokenizer, shape.thinking)

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
