"""Runs sequences on the C++ engine: pages for what they remember, one call a step, a prompt's known beginning never computed twice."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from spoutnik.engine.blocks import Blocks
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.drafting import Drafting
from spoutnik.engine.kernels.fingerprint import fingerprint
from spoutnik.engine.kernels.native import NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.rows import CHUNK_ROWS, Rows, add_pieces, feed
from spoutnik.engine.kernels.scoring import Scoring
from spoutnik.engine.prompts import Prompts
from spoutnik.engine.sampler import uniforms
from spoutnik.engine.scheduler import Drawn
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

STEP_ROWS = 512
"""Most tokens of one call."""
SCORED_ROWS = 64
"""Least room for rows of one call whose logits are wanted, so that a small batch scores given tokens in reasonable steps."""
CACHE_BYTES = 2 << 30
SAMPLED = 64
"""Values of each tensor that are compared to see whether the weights changed."""


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
        self._versions, self._values = self._look()
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
        self._open_shelf()
        self._rows: Rows | None = None

    def wake(self) -> None:
        """Follows the model's weights where they changed since the last work; what was cached under the old ones is forgotten."""
        versions, values = self._look()
        if versions != self._versions or not torch.equal(values, self._values):
            self.refresh()

    def refresh(self) -> None:
        """Packs the model's weights again, into the same memory; what was cached under the old ones is forgotten."""
        self._program.refresh()
        self.blocks.forget()
        self._versions, self._values = self._look()
        self._open_shelf()

    def score(self, given: Sequence[Given], temperature: float) -> list[list[float]]:
        """Log-probabilities by the operations that `step` runs, so the same bits; also while sequences run."""
        return Scoring(self._engine, self.blocks, temperature, CHUNK_ROWS).run(given)

    def admits(self, sequence: Running) -> bool:
        """Takes all the pages that the sequence may ever need, or says no."""
        return self._prompts.admit(sequence)

    def step(self, running: Sequence[Running]) -> list[Drawn]:
        """One call: a token of every sequence that has its prompt cached, perhaps with a guess of the next one behind it, and with the
        rows that are left, prompts in the order they came. Where guessing goes on, two more calls store what it needs and guess anew.

        A call reads what it writes, layer by layer, so that pieces of one prompt, and of prompts that share pages, may lie in one call.
        """
        began, prompts, drafting = perf_counter(), self._prompts, self.drafting
        if self._rows is None:
            self._rows = Rows.of([sequence for sequence in running if sequence.id not in prompts.unfinished], prompts.tables)
        rows = self._rows
        rows.table[:, 2] = [sequence.last_position for sequence in rows.sequences]
        guesses = np.full(len(rows.sequences), -1) if drafting is None else drafting.begin(rows.sequences, len(running))
        call = feed(rows, guesses)
        first_row = len(call.tokens)
        pieces = prompts.plan(self._engine.most_rows - first_row) if prompts.unfinished else []
        if pieces:
            beginners = [sequence for piece in pieces if piece.complete for sequence in (piece.sequence, *piece.company)]
            call = add_pieces(call, pieces, beginners, len(rows.sequences), prompts.tables)
            rows += Rows.of(beginners, prompts.tables)
        if not len(call.tokens):
            return []  # every prompt is still being read from disk
        draws = rows.draws[call.drawers]
        draws["uniform"] = uniforms(rows.seeds[call.drawers], call.positions.tolist())
        drawn, _ = self._engine.run(call.tokens, call.table, call.pages, call.picked, draws)
        tokens, kept = drawn["token"], np.ones(len(drawn), bool)
        kept[call.guessed] = tokens[call.guessed - 1] == call.tokens[call.guessed]
        if (tokens[kept] < 0).any():
            raise UserError("The model's logits are not finite, so no token can be drawn; check its weights for NaN or infinity.")
        if drafting is not None and drafting.active:
            drafting.enter(pieces, prompts.tables, first_row)
        prompts.finish(pieces)
        if any(piece.complete for piece in pieces):
            self._rows = None
        if drafting is not None:
            if drafting.active:
                drafting.guess(rows, call, tokens, kept)
            drafting.note(rows.sequences, call, kept, None if pieces else perf_counter() - began)
        sequences = [rows.sequences[place] for place in call.drawers[kept].tolist()]
        return list(zip(sequences, tokens[kept].tolist(), drawn["logprob"][kept].tolist(), strict=True))

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

    def _look(self) -> tuple[list[tuple[int, int]], Tensor]:
        """What tells changed weights from unchanged ones: version counters, and some values of every tensor.

        The counters alone do not do: torch's fused optimisers leave them as they are.
        """
        tensors = [*self._model.parameters(), *self._model.buffers()]
        versions = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        values = [tensor.detach().reshape(-1)[:: max(1, tensor.numel() // SAMPLED)].float() for tensor in tensors]
        return versions, torch.cat(values)
