"""Speculative decoding (arXiv 2211.17192) by the model's own multi-token prediction layer (DeepSeek-V3, section 2.2).

A step feeds a sequence its newest token and a guess of the next one, and draws at both rows with the random numbers of their positions.
The second draw counts if the first one is the guess; so tokens and log-probabilities are those of drawing one by one, to the bit. The
guess is drawn from the layer's logits with the very number that its position's token will be drawn with, so both agree where the
distributions do; nothing is rejected at random.

The layer's keys and values stand in the pages behind those of the model's layers: in the place of token i what follows from it and the
hidden state before it. What is unknown is zero there: the first place after a page that was found and not computed, and what was fed while
guessing did not pay. Guesses are worse for it, nothing else is.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from spoutnik.engine.blocks import Table
from spoutnik.engine.kernels.native import DRAW, NativeEngine, layout
from spoutnik.engine.kernels.operations import Program
from spoutnik.engine.kernels.rows import chunks
from spoutnik.engine.prompts import Piece
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.speculation import Judge


class Chooser(Protocol):
    """What decides on guessing; `Judge` does by what it costs."""

    def guesses(self, sequences: int) -> bool:
        """Whether a step of so many sequences guesses."""
        ...

    def note(self, sequences: int, guessed: bool, seconds: float, tokens: int) -> None:
        """What a step without prompts took and gave."""
        ...


class Drafting:
    """Guesses for the sequences that run. `layer_bytes` is what the layer takes of a page, at its end."""

    def __init__(self, engine: NativeEngine, program: Program, layer_bytes: int):
        self._engine, self._program = engine, program
        self.chooser: Chooser = Judge()
        self._guesses: dict[int, int] = {}
        self._zeros = bytes(layer_bytes)

    def clean(self, page: int) -> None:
        """A sequence takes a page: what it holds of another is of no use."""
        place = self._engine.page(page)[-len(self._zeros) :]
        if bytes(place) != self._zeros:  # looking first leaves untouched memory untouched
            place[:] = self._zeros

    def wanted(self, running: int) -> bool:
        """Whether a step of so many sequences guesses."""
        return 2 * running <= min(self._engine.most_rows, self._engine.most_picked) and self.chooser.guesses(running)

    def take(self, sequences: Sequence[Running], guessing: bool) -> list[int] | None:
        """The guess for each of the sequences, which is used up; None if one lacks or none is wanted."""
        known, self._guesses = self._guesses, {}
        guesses = [known.get(sequence.id, -1) for sequence in sequences] if guessing else []
        return guesses if guesses and min(guesses) >= 0 else None

    def keep(self, sequences: Sequence[Running], guesses: Sequence[int]) -> None:
        """Remembers what may come next of each sequence; -1 where the layer's logits are not finite."""
        self._guesses = dict(zip((sequence.id for sequence in sequences), guesses, strict=True))

    def enter(self, pieces: Sequence[Piece], tables: dict[int, Table], first_row: int) -> None:
        """Stores what is known of pieces of prompts; their rows were in the call before, from `first_row` on."""
        cut = chunks(pieces, tables, shift=1)
        if not cut:
            return
        tokens = np.fromiter((token for chunk in cut for token in chunk.tokens), np.int32)
        sources: list[int] = []
        for piece in pieces:
            sources += range(first_row, first_row + piece.end - piece.start - piece.complete)
            first_row += piece.end - piece.start
        self._engine.run(
            tokens, *layout(cut), np.zeros(0, np.int32), np.zeros(0, DRAW), operations=self._program.entries,
            sources=np.array(sources, dtype=np.int32),
        )  # fmt: skip

    def count(self, sequences: Sequence[Running], kept: Sequence[int]) -> None:
        """Each sequence had a guess, of use where there is room for two tokens, and right where two draws are kept."""
        for sequence, draws in zip(sequences, kept, strict=True):
            sequence.drafted_tokens += sequence.room > 1
            sequence.accepted_tokens += draws - 1
