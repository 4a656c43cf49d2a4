"""Runs sequences on the C++ engine: pages for what they remember, one call a step, a prompt's known beginning never computed twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoutnik.engine.blocks import Blocks, Table
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, Chunk, NativeEngine, layout
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.scoring import Scoring
from spoutnik.engine.sampler import MASK64, uniforms
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

STEP_ROWS = 512
"""Most tokens of one call."""
CHUNK_ROWS = 16
"""Most queries of one sequence that attend together; more chunks keep all threads busy."""
SCORED_ROWS = 64
"""Least room for rows of one call whose logits are wanted, so that a small batch scores given tokens in reasonable steps."""
CACHE_BYTES = 2 << 30
SAMPLED = 64
"""Values of each tensor that are compared to see whether the weights changed."""


@dataclass
class _Rows:
    """What a decode step needs besides the newest tokens; see `layout`."""

    table: NDArray[np.int32]
    pages: NDArray[np.int32]
    draws: NDArray[np.void]
    seeds: NDArray[np.uint64]


class KernelRunner:
    """`precision` is that of weights, of activations in products, and of the cache: float32, bfloat16, int8 or int4.

    With integer weights the cache is bfloat16, activations are rounded to 8 bits in groups of 32, and with int4 the head is int8. Router,
    norms, sums and softmax are float32 always. A row's results do not depend on the other rows of a step, nor on how a prompt is cut.
    """

    exact = True

    def __init__(self, model: CausalLM, precision: str, max_batch: int, max_length: int, cache_bytes: int = CACHE_BYTES):
        self._model, self._engine = model, NativeEngine()
        self._program = write_program(model, self._engine, precision, max(STEP_ROWS, max_batch), max(SCORED_ROWS, max_batch), max_length)
        self._versions, self._values = self._look()
        shape = (precision != "float32", model.config.num_hidden_layers, *cache_shape(model))
        of_one = -(-max_length // PAGE)
        self.blocks = Blocks(max(min(max_batch * of_one, cache_bytes // self._engine.page_bytes(*shape)), of_one), PAGE)
        self._engine.cache(*shape, self.blocks.pages)
        self._tables: dict[int, Table] = {}
        self._rows: _Rows | None = None

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

    def score(self, given: Sequence[Given], temperature: float) -> list[list[float]]:
        """Log-probabilities by the operations that `decode` runs, so the same bits; also while sequences run."""
        return Scoring(self._engine, self.blocks, temperature, CHUNK_ROWS).run(given)

    def admits(self, sequence: Running) -> bool:
        """Takes all the pages that the sequence may ever need, or says no."""
        prompt = sequence.prompt_ids[:-1]
        table = self.blocks.acquire(prompt, len(sequence.prompt_ids) + sequence.room)
        if table is None:
            return False
        self._tables[sequence.id] = table
        # Remembered before they are filled: whoever finds these pages reads them after this sequence's prefill, which is in this same step.
        self.blocks.remember(table, prompt)
        return True

    def prefill(self, running: Sequence[Running], admitted: int) -> None:
        """Caches all but the last prompt token of the sequences admitted last. Of equal prompts the last, partial page is computed once."""
        computed: dict[tuple[int, ...], Running] = {}
        copies: list[tuple[int, int]] = []
        chunks: list[Chunk] = []
        for sequence in running[len(running) - admitted :]:
            table, prompt = self._tables[sequence.id], sequence.prompt_ids[:-1]
            source = computed.setdefault(sequence.prompt_ids, sequence)
            partial = len(prompt) // PAGE
            if source is not sequence and table.cached == partial * PAGE:
                if partial * PAGE < len(prompt):
                    copies.append((self._tables[source.id].pages[partial], table.pages[partial]))
                continue
            for start in range(table.cached, len(prompt), CHUNK_ROWS):
                tokens = prompt[start : start + CHUNK_ROWS]
                chunks.append(Chunk(tokens, start, table.pages[: (start + len(tokens) - 1) // PAGE + 1]))
        self._cache_chunks(chunks)
        for source_page, target_page in copies:
            self._engine.page(target_page)[:] = self._engine.page(source_page)

    def decode(self, running: Sequence[Running]) -> tuple[list[int], list[float]]:
        """The next token of every sequence and its log-probability."""
        if self._rows is None or len(self._rows.seeds) != len(running):
            self._rows = self._lay_out(running)
        rows = self._rows
        rows.table[:, 2] = positions = [sequence.last_position for sequence in running]
        rows.draws["uniform"] = uniforms(rows.seeds, [position + 1 for position in positions])
        tokens = np.array([sequence.last_token for sequence in running], dtype=np.int32)
        drawn, _ = self._engine.run(tokens, rows.table, rows.pages, rows.table[:, 0].copy(), rows.draws)
        if (drawn["token"] < 0).any():
            raise UserError("The model's logits are not finite, so no token can be drawn; check its weights for NaN or infinity.")
        return drawn["token"].tolist(), drawn["logprob"].tolist()

    def changed(self, running: Sequence[Running], moves: Sequence[tuple[int, int]]) -> None:
        """Rows ended or moved: pages stay where they are."""
        self._rows = None

    def release(self, ended: Sequence[Running]) -> None:
        """Gives pages back; what they hold stays findable until the room is needed."""
        for sequence in ended:
            table = self._tables.pop(sequence.id, None)
            if table is not None:
                self.blocks.remember(table, [*sequence.prompt_ids, *sequence.token_ids][: sequence.last_position])
                self.blocks.release(table)

    def rest(self) -> None:
        """Nothing runs: the cache stays for prompts to come."""

    def reset(self) -> None:
        """Something failed: nothing that is cached is trusted any more."""
        self._rows = None
        for table in self._tables.values():
            self.blocks.release(table)
        self._tables.clear()
        self.blocks.forget()

    def _cache_chunks(self, chunks: Sequence[Chunk]) -> None:
        batch: list[Chunk] = []
        rows = 0
        for chunk in chunks:
            if rows + len(chunk.tokens) > STEP_ROWS:
                self._engine.step(batch, [], np.empty(0, DRAW))
                batch, rows = [], 0
            batch.append(chunk)
            rows += len(chunk.tokens)
        if batch:
            self._engine.step(batch, [], np.empty(0, DRAW))

    def _lay_out(self, running: Sequence[Running]) -> _Rows:
        """All of a decode step that stays the same while the same sequences run."""
        requests = [sequence.request for sequence in running]
        draws = np.zeros(len(running), DRAW)
        draws["top_p"] = [request.top_p for request in requests]
        draws["temperature"] = [request.temperature for request in requests]
        draws["top_k"] = [min(request.top_k, 2**31 - 1) for request in requests]
        draws["forced"] = -1
        table, pages = layout([Chunk((0,), 0, self._tables[sequence.id].pages) for sequence in running])
        return _Rows(table, pages, draws, np.array([request.seed & MASK64 for request in requests], dtype=np.uint64))

    def _look(self) -> tuple[list[tuple[int, int]], Tensor]:
        """What tells changed weights from unchanged ones: version counters, and some values of every tensor.

        The counters alone do not do: torch's fused optimisers leave them as they are.
        """
        tensors = [*self._model.parameters(), *self._model.buffers()]
        versions = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        values = [tensor.detach().reshape(-1)[:: max(1, tensor.numel() // SAMPLED)].float() for tensor in tensors]
        return versions, torch.cat(values)
