"""Speculative decoding by the model's own multi-token prediction layer (DeepSeek-V3, section 2.2; the method: arXiv 2211.17192).

A step feeds a sequence its newest token and a guess of the next one, and draws at both rows with the random numbers of their positions.
The second draw counts if the first one is the guess; so tokens and log-probabilities are those of drawing one by one, to the bit. The
guess is drawn from the layer's logits with the very number that its position's token will be drawn with, so both agree where the
distributions do.

The layer's keys and values stand in the pages behind those of the model's layers: in the place of token i what follows from it and the
hidden state before it. What is unknown is zero there: the first place after a page that was found and not computed, and what was fed while
guessing did not pay. Guesses are worse for it, nothing else is.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spoutnik.engine.blocks import Table
from spoutnik.engine.kernels.native import DRAW, NativeEngine, layout
from spoutnik.engine.kernels.program import Program
from spoutnik.engine.kernels.rows import Call, Rows, chunks
from spoutnik.engine.prompts import Piece
from spoutnik.engine.sampler import uniforms
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.speculation import Judge


class Chooser(Protocol):
    """What decides on guessing; `Judge` does by what it costs."""

    def guesses(self, sequences: int) -> bool:
        """Whether a step of so many sequences guesses."""
        ...

    def note(self, sequences: int, guessed: bool, seconds: float, tokens: int) -> None:
        """What such a step took and gave."""
        ...


class Drafting:
    """Guesses for the sequences that run. `layer_bytes` is what the layer takes of a page, at its end."""

    def __init__(self, engine: NativeEngine, program: Program, layer_bytes: int):
        self._engine, self._program = engine, program
        self.chooser: Chooser = Judge()
        self._zeros = bytes(layer_bytes)
        self._guesses: dict[int, int] = {}
        self.active = False
        """Whether this step guesses."""

    def clean(self, page: int) -> None:
        """A sequence takes a page: what it holds of another is of no use."""
        place = self._engine.page(page)[-len(self._zeros) :]
        if bytes(place) != self._zeros:  # looking first leaves untouched memory untouched
            place[:] = self._zeros

    def begin(self, sequences: Sequence[Running], running: int) -> NDArray[np.int32]:
        """A step of `running` sequences begins, of which these draw. Returns a guess for each, -1 for none."""
        fits = 2 * running <= min(self._engine.most_rows, self._engine.most_picked)
        self.active = fits and self.chooser.guesses(running)
        known = self._guesses if self.active else {}
        guesses = [known.get(sequence.id, -1) if sequence.room > 1 else -1 for sequence in sequences]
        self._guesses = {}
        return np.array(guesses, dtype=np.int32)

    def enter(self, pieces: Sequence[Piece], tables: dict[int, Table], first_row: int) -> None:
        """Stores what is known of pieces of prompts; their rows were in the call before, from `first_row` on."""
        cut = chunks(pieces, tables, shift=1)
        if not cut:
            return
        ends = np.cumsum([first_row, *(piece.end - piece.start for piece in pieces)])
        sources = [
            np.arange(end - (piece.end - piece.start), end - piece.complete) for piece, end in zip(pieces, ends[1:], strict=True)
        ]
        tokens = np.array([token for chunk in cut for token in chunk.tokens], dtype=np.int32)
        none = np.zeros(0, np.int32)
        self._engine.run(
            tokens, *layout(cut), none, np.zeros(0, DRAW), operations=self._program.entries,
            sources=np.concatenate(sources).astype(np.int32),
        )  # fmt: skip

    def guess(self, rows: Rows, call: Call, tokens: NDArray[np.int32], kept: NDArray[np.bool_]) -> None:
        """Guesses what comes after the `tokens` that `call` drew for these rows, as far as they are `kept`."""
        counts = np.bincount(call.drawers[kept], minlength=len(rows.sequences))
        table = rows.table.copy()
        table[:, 0], table[:, 1], table[:, 2] = np.cumsum(counts) - counts, counts, rows.table[:, 2] + 1
        draws = rows.draws.copy()
        draws["uniform"] = uniforms(rows.seeds, (table[:, 2] + counts).tolist())
        drawn, _ = self._engine.run(
            tokens[kept], table, rows.pages, (table[:, 0] + counts - 1).astype(np.int32), draws, operations=self._program.drafts,
            sources=call.picked[kept],
        )  # fmt: skip
        self._guesses = dict(zip((sequence.id for sequence in rows.sequences), drawn["token"].tolist(), strict=True))

    def note(self, sequences: Sequence[Running], call: Call, kept: NDArray[np.bool_], seconds: float | None) -> None:
        """Counts which guesses of a call were right, and tells the chooser what a step without prompts took."""
        right = kept[call.guessed]
        for place in call.drawers[call.guessed].tolist():
            sequences[place].drafted_tokens += 1
        for place in call.drawers[call.guessed][right].tolist():
            sequences[place].accepted_tokens += 1
        guessed = len(call.guessed) > 0
        if seconds is not None and (len(call.guessed) == len(sequences) if self.active else not guessed):
            self.chooser.note(len(sequences), guessed, seconds, int(kept.sum()))
