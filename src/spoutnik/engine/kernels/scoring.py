"""Scores given tokens on the C++ engine: the operations that sample, with the token given instead of drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spoutnik.engine.blocks import Blocks, Table
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, Chunk, NativeEngine
from spoutnik.engine.kernels.steered import CHOICE, top_lists
from spoutnik.engine.scoring import Given, Scored, not_finite
from spoutnik.errors import UserError

Owner = tuple[str, bytes]
"""With the fingerprint of the adapter."""


@dataclass(frozen=True)
class _Neighbour:
    """The sequence planned before, whose pages are still held."""

    table: Table
    owner: Owner
    prompt: Sequence[int]
    """Its tokens before the first whose logits are wanted."""
    step: int
    """The step that fills the prompt's pages, or one before it."""


class Scoring:
    """One call's work, collected until a step is full.

    `adapters` are numbers and fingerprints by name. Rows of a prompt that are found in the cache are not computed again, nor those of its
    last, partial page where the sequence before has the same prompt.
    """

    def __init__(
        self, engine: NativeEngine, blocks: Blocks, adapters: Mapping[str, tuple[int, bytes]], temperature: float, top_logprobs: int,
        chunk_rows: int,
    ):  # fmt: skip
        self._engine, self._blocks, self._adapters = engine, blocks, adapters
        self._temperature, self._top_logprobs = temperature, top_logprobs
        self._chunk_rows = min(chunk_rows, engine.most_rows, engine.most_picked)
        self._held: list[Table] = []
        self._neighbour: _Neighbour | None = None
        self._steps = 0
        self._clear()

    def run(self, given: Sequence[Given]) -> list[Scored]:
        """What the model says of each sequence's tokens after its prompt.

        Logits with NaN or infinity, and a cache that others fill, raise UserError.
        """
        found = [Scored([], []) for _ in given]
        try:
            for one, scored in zip(given, found, strict=True):
                if one.prompt_tokens < len(one.token_ids):
                    self._plan(one, scored)
            self._step()
        except BaseException:
            self._blocks.forget()  # pages are findable before they are filled
            for table in self._held:
                self._blocks.unwrite(table)
                for page in table.pages[table.cached // PAGE :]:  # it may hold NaN, and 0 times NaN is not 0 to who gets it next
                    memory = self._engine.page(page)
                    memory[:] = bytes(len(memory))
            raise
        finally:
            self._release()
        return found

    def _plan(self, one: Given, scored: Scored) -> None:
        """Puts a sequence's rows into steps, which append to `scored`."""
        fed, first_picked = one.token_ids[:-1], one.prompt_tokens - 1
        adapter, fingerprint = self._adapters[one.adapter]
        owner = one.owner, fingerprint
        table = self._acquire(owner, fed[:first_picked], len(fed))
        for start in range(self._known(table, owner, fed[:first_picked]), len(fed), self._chunk_rows):
            tokens = fed[start : start + self._chunk_rows]
            picked = range(max(first_picked - start, 0), len(tokens))
            if self._rows + len(tokens) > self._engine.most_rows or len(self._picked) + len(picked) > self._engine.most_picked:
                self._step()
            self._picked += [self._rows + row for row in picked]
            self._targets += [one.token_ids[start + row + 1] for row in picked]
            self._wanted += [scored] * len(picked)
            self._chunks.append(Chunk(tokens, start, table.pages[: self._blocks.needed(start + len(tokens))], adapter))
            self._rows += len(tokens)
        self._neighbour = _Neighbour(table, owner, fed[:first_picked], self._steps)
        self._blocks.remember(table, fed)
        self._blocks.write(table, len(fed))  # or will before anyone reads it

    def _acquire(self, owner: Owner, prompt: Sequence[int], tokens: int) -> Table:
        table = self._blocks.acquire(prompt, tokens, owner)
        if table is None:
            self._step()
            self._release()
            table = self._blocks.acquire(prompt, tokens, owner)
        if table is None:
            raise UserError(
                f"The cache has room for {self._blocks.available * PAGE} tokens beside the requests that run, but a sequence to be scored "
                f"needs {tokens}; score it when fewer run."
            )
        self._held.append(table)
        return table

    def _known(self, table: Table, owner: Owner, prompt: Sequence[int]) -> int:
        """How many of the prompt's first tokens the table's pages hold, after what the neighbour has was copied."""
        neighbour, partial = self._neighbour, len(prompt) // PAGE
        alike = neighbour is not None and neighbour.owner == owner and neighbour.prompt == prompt
        if neighbour is None or not alike or table.written < partial * PAGE or table.written == len(prompt):
            return table.written
        if neighbour.step == self._steps:
            self._step()
        self._engine.page(table.pages[partial])[:] = self._engine.page(neighbour.table.pages[partial])
        return len(prompt)

    def _step(self) -> None:
        """Computes what was collected. The keys of all its rows are in place before any row attends, so a row may read those of others."""
        if self._chunks:
            draws = np.zeros(len(self._picked), DRAW)
            draws["top_p"], draws["temperature"], draws["forced"] = 1.0, self._temperature, self._targets
            drawn, _ = self._engine.step(self._chunks, self._picked, draws)
            if (drawn["token"] < 0).any():
                raise not_finite()
            for scored, logprob in zip(self._wanted, drawn["logprob"].tolist(), strict=True):
                scored.logprobs.append(logprob)
            if self._top_logprobs and self._picked:
                choices = np.zeros(len(self._picked), CHOICE)
                choices["draw"], choices["pick"], choices["margin"] = draws, range(len(choices)), -np.inf
                choices["tops"] = self._top_logprobs
                self._engine.decide(choices)
                for scored, top in zip(self._wanted, top_lists(self._engine, choices), strict=True):
                    scored.top_logprobs.append(top)
        self._steps += 1
        self._clear()
        self._release(keep=2)

    def _clear(self) -> None:
        self._chunks: list[Chunk] = []
        self._picked: list[int] = []
        self._targets: list[int] = []
        self._wanted: list[Scored] = []
        self._rows = 0

    def _release(self, keep: int = 0) -> None:
        """Gives pages back, but for those of the last sequences: the one that is planned, and its neighbour."""
        done = self._held[: len(self._held) - keep] if len(self._held) > keep else []
        for table in done:
            self._blocks.release(table)
        self._held = self._held[len(done) :]
        if not self._held:
            self._neighbour = None
