"""Runs sequences on the C++ engine: pages for what they remember, one call a step, a prompt's known beginning never computed twice."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.engine.blocks import Blocks, Pages
from spoutnik.engine.kernels.adapters import Adapters
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.drafting import Drafting
from spoutnik.engine.kernels.fingerprint import fingerprint
from spoutnik.engine.kernels.native import DRAWN, Follow, NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.rows import CHUNK_ROWS, Rows, with_pieces
from spoutnik.engine.kernels.scoring import Scoring
from spoutnik.engine.kernels.steered import draw_steered
from spoutnik.engine.prompts import Piece, Prompts
from spoutnik.engine.scheduler import Drawn
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given, Scored
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
from spoutnik.engine.watch import Watch
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

STEP_ROWS = 512
"""Most tokens of one call."""
SCORED_ROWS = 64
"""Least room for rows of one call whose logits are wanted, so that a small batch scores given tokens in reasonable steps."""
CACHE_BYTES = 2 << 30


class KernelRunner:
    """`precision` is that of weights, of activations in products, and of the cache: float32, bfloat16, int8 or int4.

    With integer weights the cache is bfloat16, activations are rounded to 15 bits, and with int4 the head is int8. Router, norms, sums and
    softmax are float32 always. A row's results do not depend on the other rows of a step, nor on how a prompt is cut.

    The cache takes `cache_bytes` of memory at most, and no sequence may need more (None: 2 GiB, or one sequence of the full length if that
    is more). With a `store`, pages of prompts are also kept on disk. With `speculate`, a model with a multi-token prediction layer guesses
    ahead where that is faster (`drafting.py`); the results are the same.
    """

    exact = True

    def __init__(
        self, model: CausalLM, precision: str, max_batch: int, max_length: int, cache_bytes: int | None = None,
        store: Store | None = None, speculate: bool = True,
    ):  # fmt: skip
        self._model, self._engine, self._store = model, NativeEngine(), store
        drafts = speculate and model.config.num_nextn_predict_layers > 0
        rows, picks = max(STEP_ROWS, max_batch), max(SCORED_ROWS, max_batch)
        self._program = write_program(model, self._engine, precision, rows, picks, max_length, drafts)
        self._watch = Watch(model)
        layers = model.config.num_hidden_layers + drafts
        shape = (precision != "float32", layers, *cache_shape(model))
        page_bytes, of_one = self._engine.page_bytes(*shape), -(-max_length // PAGE)
        allowed = max(CACHE_BYTES // page_bytes, of_one) if cache_bytes is None else cache_bytes // page_bytes
        self.drafting = Drafting(self._engine, self._program, page_bytes // layers) if drafts else None
        clean = self.drafting.clean if self.drafting is not None else None
        self.blocks = Blocks(min(max_batch * of_one, allowed), PAGE, clean)
        self.most_tokens = self.blocks.pages * PAGE
        self._engine.cache(*shape, self.blocks.pages)
        self._prompts = Prompts(self.blocks, self._engine.page)
        self._adapters = Adapters(self._engine, model, self._program.sites)
        self._prompts.adapters = self._adapters.known
        self._open_shelf()
        self._rows: Rows | None = None
        self._follow: Follow | None = None  # what goes on from the rows

    @property
    def pages(self) -> Pages:
        return self.blocks.count

    def wake(self) -> None:
        """Follows the model's weights where they changed since the last work; what was cached under the old ones is forgotten."""
        if self._watch.changed():
            self.refresh()

    def refresh(self) -> None:
        """Packs the model's weights again, into the same memory; what was cached under the old ones is forgotten."""
        self._program.refresh()
        self.blocks.forget()
        self._watch = Watch(self._model)
        self._open_shelf()

    def score(self, given: Sequence[Given], temperature: float, top_logprobs: int) -> list[Scored]:
        """Log-probabilities by the operations that `step` runs, so the same bits; also while sequences run."""
        return Scoring(self._engine, self.blocks, self._adapters.known, temperature, top_logprobs, CHUNK_ROWS).run(given)

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Packs it; the program stays as it is."""
        self._adapters.add(name, adapter)

    def remove_adapter(self, name: str) -> None:
        """What was cached under it is found by the same adapter alone, should it come back."""
        self._adapters.remove(name)

    def admits(self, sequence: Running) -> bool:
        """Takes all the pages that the sequence may ever need, or says no."""
        return self._prompts.admit(sequence)

    def step(self, running: Sequence[Running]) -> list[Drawn]:
        """One call: the newest token of every sequence that has its prompt cached, perhaps with a guess of the next one, and with the rows
        that are left, prompts in the order they came.

        A call reads what it writes, layer by layer, so that pieces of one prompt, and of prompts that share pages, may lie in one call.
        """
        began, prompts, drafting = perf_counter(), self._prompts, self.drafting
        steered = any(sequence.steering is not None for sequence in running)  # then nobody guesses: a draw would have to wait for another
        guessing = drafting is not None and not steered and drafting.wanted(len(running))
        rows = self._rows or self._arrange([sequence for sequence in running if sequence.id not in prompts.unfinished], 1)
        guesses = None if drafting is None else drafting.take(rows.sequences, guessing)
        if rows.width != (1 if guesses is None else 2):
            rows = self._arrange(rows.sequences, 3 - rows.width)
        rows.feed(guesses)
        pieces = prompts.plan(self._engine.most_rows - len(rows.tokens)) if prompts.unfinished else []
        rows, drawn, follow = self._compute(rows, pieces, guessing)
        kept = None if follow is None else follow.kept.tolist()
        result = _results(rows, drawn, kept)
        if steered and rows.sequences:
            chosen = {one[0].id: one for one in draw_steered(self._engine, rows)}
            result = [chosen.get(one[0].id, one) for one in result]
        if any(one[1] < 0 for one in result):
            raise UserError("The model's logits are not finite, so no token can be drawn; check its weights for NaN or infinity.")
        if drafting is not None:
            if follow is not None:
                drafting.keep(rows.sequences, follow.drawn["token"].tolist())
            if guesses is not None and kept is not None:
                drafting.count(rows.sequences[: len(guesses)], kept[: len(guesses)])
            if not pieces and not steered:
                drafting.chooser.note(len(running), guessing, perf_counter() - began, len(result))
        return result

    def _compute(self, rows: Rows, pieces: list[Piece], guessing: bool) -> tuple[Rows, NDArray[np.void], Follow | None]:
        """The calls of one step. Returns the rows with those of prompts, what was drawn, and what followed from it if guessing goes on."""
        prompts, first_row, follow = self._prompts, len(rows.tokens), self._follow
        if pieces:
            rows, begins, pages = with_pieces(rows, pieces, prompts.tables)
            follow = Follow(self._program.drafts, rows.counts, rows.rooms, begins, pages)
        if not len(rows.tokens):
            return rows, np.empty(0, DRAWN), None  # every prompt is still being read from disk
        call = rows.tokens, rows.table, rows.pages, rows.picked, rows.draws
        follow = follow if guessing else None
        drawn, _ = self._engine.run(*call, follow=None if pieces else follow)
        if pieces:
            if self.drafting is not None and guessing:
                self.drafting.enter(pieces, prompts.tables, first_row)
            prompts.finish(pieces)
            if follow is not None:  # with pages of their own for all who begin
                self._engine.run(*call, follow=follow, drawn=drawn)
            if any(piece.complete for piece in pieces):
                self._rows = None
        return rows, drawn, follow

    def _arrange(self, sequences: list[Running], width: int) -> Rows:
        self._rows = rows = Rows.of(sequences, self._prompts.tables, width)
        self._follow = Follow(self._program.drafts, rows.counts, rows.rooms, rows.table[:, 3], rows.pages)
        return rows

    def changed(self, running: Sequence[Running], moves: Sequence[tuple[int, int]]) -> None:
        """Rows ended or moved: pages stay where they are."""
        self._rows = None

    def release(self, ended: Sequence[Running]) -> None:
        """Gives pages back; what they hold stays findable until the room is needed."""
        for sequence in ended:
            self._prompts.release(sequence)

    def rest(self) -> None:
        """Nothing runs: the cache stays for prompts to come."""

    def reset(self) -> None:
        """Something failed: nothing that is cached is trusted any more."""
        self._rows = None
        self._prompts.reset()

    def _open_shelf(self) -> None:
        if self._store is not None:
            self._prompts.shelf = Shelf(self._store, fingerprint(self._model, self._program), PAGE, len(self._engine.page(0)))


def _results(rows: Rows, drawn: NDArray[np.void], kept: list[int] | None) -> list[Drawn]:
    """What was drawn for each sequence; of its picks the first ones are `kept` (None: of all the only one)."""
    tokens, logprobs = drawn["token"].tolist(), drawn["logprob"].tolist()
    if kept is None:
        return list(zip(rows.sequences, tokens, logprobs, [None] * len(tokens), strict=True))
    result: list[Drawn] = []
    pick = 0
    for sequence, picks, count in zip(rows.sequences, rows.counts.tolist(), kept, strict=True):
        result += [(sequence, tokens[place], logprobs[place], None) for place in range(pick, pick + count)]
        pick += picks
    return result
