"""Runs sequences on the C++ engine: pages for what they remember, one call a step, a prompt's known beginning never computed twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.engine.blocks import Blocks
from spoutnik.engine.kernels.adapters import Adapters
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.fingerprint import fingerprint
from spoutnik.engine.kernels.native import DRAW, Chunk, NativeEngine, layout
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.scoring import Scoring
from spoutnik.engine.prompts import Piece, Prompts
from spoutnik.engine.sampler import MASK64, uniforms
from spoutnik.engine.scheduler import Drawn
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

STEP_ROWS = 512
"""Most tokens of one call."""
CHUNK_ROWS = 32
"""Most queries of one sequence that attend together; more chunks keep all threads busy."""
SCORED_ROWS = 64
"""Least room for rows of one call whose logits are wanted, so that a small batch scores given tokens in reasonable steps."""
CACHE_BYTES = 2 << 30
SAMPLED = 64
"""Values of each tensor that are compared to see whether the weights changed."""


@dataclass
class _Rows:
    """One token of each sequence that has its whole prompt cached, as `NativeEngine.run` wants them."""

    sequences: list[Running]
    table: NDArray[np.int32]
    pages: NDArray[np.int32]
    draws: NDArray[np.void]
    seeds: NDArray[np.uint64]


class KernelRunner:
    """`precision` is that of weights, of activations in products, and of the cache: float32, bfloat16, int8 or int4.

    With integer weights the cache is bfloat16, activations are rounded to 15 bits, and with int4 the head is int8. Router, norms, sums and
    softmax are float32 always. A row's results do not depend on the other rows of a step, nor on how a prompt is cut.

    The cache takes `cache_bytes` of memory at most, and no sequence may need more (None: 2 GiB, or one sequence of the full length if that
    is more). With a `store`, pages of prompts are also kept on disk.
    """

    exact = True

    def __init__(
        self, model: CausalLM, precision: str, max_batch: int, max_length: int, cache_bytes: int | None = None, store: Store | None = None
    ):
        self._model, self._engine, self._store = model, NativeEngine(), store
        self._program = write_program(model, self._engine, precision, max(STEP_ROWS, max_batch), max(SCORED_ROWS, max_batch), max_length)
        self._versions, self._values = self._look()
        shape = (precision != "float32", model.config.num_hidden_layers, *cache_shape(model))
        page_bytes, of_one = self._engine.page_bytes(*shape), -(-max_length // PAGE)
        allowed = max(CACHE_BYTES // page_bytes, of_one) if cache_bytes is None else cache_bytes // page_bytes
        self.blocks = Blocks(min(max_batch * of_one, allowed), PAGE)
        self.most_tokens = self.blocks.pages * PAGE
        self._engine.cache(*shape, self.blocks.pages)
        self._prompts = Prompts(self.blocks, self._engine.page)
        self._adapters = Adapters(self._engine, model, self._program.sites)
        self._prompts.adapters = self._adapters.known
        self._open_shelf()
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
        self._open_shelf()

    def score(self, given: Sequence[Given], temperature: float) -> list[list[float]]:
        """Log-probabilities by the operations that `step` runs, so the same bits; also while sequences run."""
        return Scoring(self._engine, self.blocks, self._adapters.known, temperature, CHUNK_ROWS).run(given)

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
        """One call: a token of every sequence that has its prompt cached, and with the rows that are left, prompts in the order they came.

        A call reads what it writes, layer by layer, so that pieces of one prompt, and of prompts that share pages, may lie in one call.
        """
        if self._rows is None:
            self._rows = self._lay_out([sequence for sequence in running if sequence.id not in self._prompts.unfinished])
        rows = self._rows
        rows.table[:, 2] = [sequence.last_position for sequence in rows.sequences]
        tokens = np.array([sequence.last_token for sequence in rows.sequences], dtype=np.int32)
        picked = rows.table[:, 0].copy()
        pieces = self._prompts.plan(self._engine.most_rows - len(tokens)) if self._prompts.unfinished else []
        if pieces:
            rows, tokens, picked = self._with_pieces(rows, tokens, picked, pieces)
        if not len(tokens):
            return []  # every prompt is still being read from disk
        rows.draws["uniform"] = uniforms(rows.seeds, [sequence.last_position + 1 for sequence in rows.sequences])
        drawn, _ = self._engine.run(tokens, rows.table, rows.pages, picked, rows.draws)
        if (drawn["token"] < 0).any():
            raise UserError("The model's logits are not finite, so no token can be drawn; check its weights for NaN or infinity.")
        self._prompts.finish(pieces)
        if any(piece.complete for piece in pieces):
            self._rows = None
        return list(zip(rows.sequences, drawn["token"].tolist(), drawn["logprob"].tolist(), strict=True))

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

    def _lay_out(self, sequences: list[Running]) -> _Rows:
        """All of a step that stays the same while the same sequences draw."""
        requests = [sequence.request for sequence in sequences]
        draws = np.zeros(len(sequences), DRAW)
        draws["top_p"] = [request.top_p for request in requests]
        draws["temperature"] = [request.temperature for request in requests]
        draws["top_k"] = [min(request.top_k, 2**31 - 1) for request in requests]
        draws["forced"] = -1
        tables = [self._prompts.tables[sequence.id] for sequence in sequences]
        table, pages = layout([Chunk((0,), 0, own.pages, own.adapter) for own in tables])
        return _Rows(sequences, table, pages, draws, np.array([request.seed & MASK64 for request in requests], dtype=np.uint64))

    def _with_pieces(
        self, rows: _Rows, tokens: NDArray[np.int32], picked: NDArray[np.int32], pieces: Sequence[Piece]
    ) -> tuple[_Rows, NDArray[np.int32], NDArray[np.int32]]:
        """Puts pieces of prompts behind the rows; of a complete prompt the last row is picked, once for each of its company."""
        chunks: list[Chunk] = []
        beginners: list[Running] = []
        last_rows: list[int] = []
        count = len(tokens)
        for piece in pieces:
            own = self._prompts.tables[piece.sequence.id]
            for start in range(piece.start, piece.end, CHUNK_ROWS):
                end = min(start + CHUNK_ROWS, piece.end)
                chunks.append(Chunk(piece.sequence.prompt_ids[start:end], start, own.pages[: (end - 1) // PAGE + 1], own.adapter))
            count += piece.end - piece.start
            if piece.complete:
                beginners += [piece.sequence, *piece.company]
                last_rows += [count - 1] * (1 + len(piece.company))
        new, (table, table_pages) = self._lay_out(beginners), layout(chunks)
        table[:, 0] += len(tokens)
        table[:, 3] += len(rows.pages)
        mixed = _Rows(
            rows.sequences + beginners, np.concatenate([rows.table, table]), np.concatenate([rows.pages, table_pages]),
            np.concatenate([rows.draws, new.draws]), np.concatenate([rows.seeds, new.seeds]),
        )  # fmt: skip
        fed = np.fromiter((token for chunk in chunks for token in chunk.tokens), np.int32)
        return mixed, np.concatenate([tokens, fed]), np.concatenate([picked, np.array(last_rows, dtype=np.int32)])

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
