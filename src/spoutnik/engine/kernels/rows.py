"""What one call of the kernels is given: rows of sequences that draw, one or two each, and pieces of prompts."""

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
    """All of a step that stays the same while the same sequences draw: a row for the newest token of each, and perhaps one for a guess of
    the next, which always has a place in the pages, since a sequence's last token is never fed.
    """

    sequences: list[Running]
    width: int
    """Rows of a sequence; prompts may follow."""
    counts: NDArray[np.int32]
    """[sequences] picks of each, in order"""
    rooms: NDArray[np.int32]
    """[sequences] tokens that each may still be given"""
    tokens: NDArray[np.int32]
    table: NDArray[np.int32]
    """[chunks, 5], see `layout`"""
    pages: NDArray[np.int32]
    picked: NDArray[np.int32]
    draws: NDArray[np.void]
    """[picked]"""

    @classmethod
    def of(cls, sequences: list[Running], tables: dict[int, Table], width: int) -> "Rows":
        """`width` rows for each of these sequences."""
        requests = [sequence.request for sequence in sequences]
        draws = np.zeros(len(sequences), DRAW)
        draws["top_p"] = [request.top_p for request in requests]
        draws["temperature"] = [request.temperature for request in requests]
        draws["top_k"] = [min(request.top_k, 2**31 - 1) for request in requests]
        draws["seed"] = [request.seed & MASK64 for request in requests]
        draws["forced"] = draws["uniform"] = -1
        own = [tables[sequence.id] for sequence in sequences]
        chunks = [Chunk((0,) * width, one.last_position, table.pages, table.adapter) for one, table in zip(sequences, own, strict=True)]
        rows = width * len(sequences)
        return cls(
            sequences, width, np.full(len(sequences), width, np.int32), np.ones(len(sequences), np.int32), np.zeros(rows, np.int32),
            *layout(chunks), np.arange(rows, dtype=np.int32), draws.repeat(width),
        )  # fmt: skip

    def feed(self, guesses: list[int] | None) -> None:
        """Sets the tokens and where they stand. `guesses` fill the second rows."""
        self.table[:, 2] = [sequence.last_position for sequence in self.sequences]
        self.tokens[:: self.width] = [sequence.last_token for sequence in self.sequences]
        if guesses is not None:
            self.tokens[1::2] = guesses
            self.rooms[:] = [sequence.room for sequence in self.sequences]


def with_pieces(rows: Rows, pieces: Sequence[Piece], tables: dict[int, Table]) -> tuple[Rows, NDArray[np.int32], NDArray[np.int32]]:
    """Puts pieces of prompts behind the rows; of a complete prompt the last row is picked, once for each sequence that begins.

    Returns also where each sequence's pages begin, and those pages: the pieces' may be another's, and end with the piece.
    """
    beginners: list[Running] = []
    last_rows: list[int] = []
    count = len(rows.tokens)
    for piece in pieces:
        count += piece.end - piece.start
        if piece.complete:
            beginners += [piece.sequence, *piece.company]
            last_rows += [count - 1] * (1 + len(piece.company))
    new, cut = Rows.of(beginners, tables, 1), chunks(pieces, tables)
    table, pages = layout(cut)
    table[:, 0] += len(rows.tokens)
    table[:, 3] += len(rows.pages)
    fed = np.fromiter((token for chunk in cut for token in chunk.tokens), np.int32)
    mixed = Rows(
        rows.sequences + beginners, rows.width, np.concatenate([rows.counts, new.counts]),
        np.concatenate([rows.rooms, new.rooms]), np.concatenate([rows.tokens, fed]), np.concatenate([rows.table, table]),
        np.concatenate([rows.pages, pages]),
        np.concatenate([rows.picked, np.array(last_rows, dtype=np.int32)]), np.concatenate([rows.draws, new.draws]),
    )  # fmt: skip
    begins = np.concatenate([rows.table[:, 3], new.table[:, 3] + len(rows.pages)])
    return mixed, begins, np.concatenate([rows.pages, new.pages])


def chunks(pieces: Sequence[Piece], tables: dict[int, Table], shift: int = 0) -> list[Chunk]:
    """The pieces cut into chunks; with `shift` 1, the tokens that follow theirs, as far as they are known."""
    cut: list[Chunk] = []
    for piece in pieces:
        prompt, table = piece.sequence.prompt_ids, tables[piece.sequence.id]
        until = min(piece.end + shift, len(prompt))
        for start in range(piece.start + shift, until, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, until)
            cut.append(Chunk(prompt[start:end], start, table.pages[: (end - 1) // PAGE + 1], table.adapter))
    return cut
