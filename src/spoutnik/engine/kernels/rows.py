"""What one call of the kernels is given: rows of sequences that draw, with or without a guess behind them, and pieces of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spoutnik.engine.blocks import Table
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, Chunk, layout
from spoutnik.engine.prompts import Piece
from spoutnik.engine.sampler import MASK64
from spoutnik.engine.scheduler import Sequence as Running

CHUNK_ROWS = 32
"""Most queries of one sequence that attend together; more chunks keep all threads busy."""


@dataclass
class Rows:
    """One row of each sequence, for its newest token: all of a step that stays the same while the same sequences draw."""

    sequences: list[Running]
    table: NDArray[np.int32]
    """[sequences, 4], see `layout`"""
    pages: NDArray[np.int32]
    draws: NDArray[np.void]
    seeds: NDArray[np.uint64]

    @classmethod
    def of(cls, sequences: list[Running], tables: dict[int, Table]) -> "Rows":
        """The rows of sequences with these pages."""
        requests = [sequence.request for sequence in sequences]
        draws = np.zeros(len(sequences), DRAW)
        draws["top_p"] = [request.top_p for request in requests]
        draws["temperature"] = [request.temperature for request in requests]
        draws["top_k"] = [min(request.top_k, 2**31 - 1) for request in requests]
        draws["forced"] = -1
        table, pages = layout([Chunk((0,), sequence.last_position, tables[sequence.id].pages) for sequence in sequences])
        return cls(sequences, table, pages, draws, np.array([request.seed & MASK64 for request in requests], dtype=np.uint64))

    def __add__(self, others: "Rows") -> "Rows":
        table = others.table.copy()
        table[:, 0] += len(self.table)
        table[:, 3] += len(self.pages)
        return Rows(
            self.sequences + others.sequences, np.concatenate([self.table, table]), np.concatenate([self.pages, others.pages]),
            np.concatenate([self.draws, others.draws]), np.concatenate([self.seeds, others.seeds]),
        )  # fmt: skip


@dataclass
class Call:
    """One call: tokens, where they stand, and what is drawn of which rows. `drawers` says for each pick whose it is."""

    tokens: NDArray[np.int32]
    table: NDArray[np.int32]
    pages: NDArray[np.int32]
    picked: NDArray[np.int32]
    drawers: NDArray[np.intp]
    """[picked] places in `Rows.sequences`"""
    positions: NDArray[np.int64]
    """[picked] where what is drawn will stand"""
    guessed: NDArray[np.intp]
    """Picks whose row holds a guess. They count if it is what the pick before them drew."""


def feed(rows: Rows, guesses: NDArray[np.int32]) -> Call:
    """The newest token of each sequence and behind it the guess of the next one, -1 for none."""
    tokens = np.array([sequence.last_token for sequence in rows.sequences], dtype=np.int32)
    position, everyone = rows.table[:, 2].astype(np.int64), np.arange(len(tokens))
    guessers = np.flatnonzero(guesses >= 0)
    if not len(guessers):
        return Call(tokens, rows.table, rows.pages, rows.table[:, 0].copy(), everyone, position + 1, guessers)
    counts = 1 + (guesses >= 0)
    table = rows.table.copy()
    table[:, 0], table[:, 1] = np.cumsum(counts) - counts, counts
    drawers, guessed = np.repeat(everyone, counts), table[guessers, 0] + 1
    fed, positions = tokens[drawers], position[drawers] + 1
    fed[guessed] = guesses[guessers]
    positions[guessed] += 1
    return Call(fed, table, rows.pages, np.arange(len(fed), dtype=np.int32), drawers, positions, guessed)


def add_pieces(call: Call, pieces: Sequence[Piece], beginners: Sequence[Running], drawing: int, tables: dict[int, Table]) -> Call:
    """Puts pieces of prompts behind a call for `drawing` sequences. Of a complete prompt the last row is picked, for each beginner."""
    table, pages = layout(chunks(pieces, tables))
    table[:, 0] += len(call.tokens)
    table[:, 3] += len(call.pages)
    ends = np.cumsum([len(call.tokens), *(piece.end - piece.start for piece in pieces)])[1:]
    last_rows = [end - 1 for piece, end in zip(pieces, ends, strict=True) if piece.complete for _ in range(1 + len(piece.company))]
    fed = [token for piece in pieces for token in piece.sequence.prompt_ids[piece.start : piece.end]]
    return Call(
        np.concatenate([call.tokens, np.array(fed, dtype=np.int32)]), np.concatenate([call.table, table]),
        np.concatenate([call.pages, pages]), np.concatenate([call.picked, np.array(last_rows, dtype=np.int32)]),
        np.concatenate([call.drawers, drawing + np.arange(len(beginners))]),
        np.concatenate([call.positions, np.array([len(sequence.prompt_ids) for sequence in beginners], dtype=np.int64)]), call.guessed,
    )  # fmt: skip


def chunks(pieces: Sequence[Piece], tables: dict[int, Table], shift: int = 0) -> list[Chunk]:
    """The pieces cut into chunks; with `shift` 1, the tokens that follow theirs, as far as they are known."""
    cut: list[Chunk] = []
    for piece in pieces:
        prompt, pages = piece.sequence.prompt_ids, tables[piece.sequence.id].pages
        until = min(piece.end + shift, len(prompt))
        for start in range(piece.start + shift, until, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, until)
            cut.append(Chunk(prompt[start:end], start, pages[: (end - 1) // PAGE + 1]))
    return cut
