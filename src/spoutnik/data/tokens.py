"""A file of token ids, and batches from it. The reading position is the step number: nothing else needs to be saved."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spoutnik.errors import UserError

_READ_TOGETHER = 1 << 20


def write_tokens(path: Path, documents: Iterable[list[int]], vocab_size: int) -> int:
    """Writes documents one after another, little-endian uint16 (uint32 for a larger vocabulary); returns the number of tokens."""
    aside, total = path.with_suffix(".new"), 0
    with aside.open("wb") as file:
        for ids in documents:
            file.write(np.asarray(ids, dtype=_dtype(vocab_size)).tobytes())
            total += len(ids)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    return total


def _dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class TokenFile:
    """Token ids on disk, memory-mapped."""

    def __init__(self, path: Path, vocab_size: int):
        if not path.is_file():
            raise UserError(f"{path} is missing; run the corpus stage again.")
        dtype, size = _dtype(vocab_size), path.stat().st_size
        if size == 0 or size % dtype.itemsize:
            raise UserError(f"{path} has {size} bytes, no whole number of tokens; it is damaged: run the corpus stage again.")
        self._tokens = np.memmap(path, dtype=dtype, mode="r")

    def __len__(self) -> int:
        return len(self._tokens)

    def documents(self, end: int | None) -> Iterator[list[int]]:
        """The documents in order, each with the token `end` that ends it; the last one may lack it."""
        rest: list[int] = []
        for start in range(0, len(self), _READ_TOGETHER):
            block = self._tokens[start : start + _READ_TOGETHER]
            parts = np.split(block, np.flatnonzero(block == end) + 1)
            for part in parts[:-1]:
                yield rest + part.tolist()
                rest = []
            rest += parts[-1].tolist()
        if rest:
            yield rest

    def batch(self, step: int, rows: int, length: int) -> Tensor:
        """Step `step`'s tokens [rows, length] int64: documents packed without masks between them, as DeepSeek-V3 does (section 4.1).

        Steps read on from each other; after the last whole batch the file starts again, shifted so that documents are cut elsewhere.
        """
        size = rows * length
        epoch_steps = len(self) // size
        if epoch_steps == 0:
            raise UserError(f"The corpus has {len(self)} tokens, but one batch takes {size}; ask for more tokens or a smaller batch.")
        epoch, place = divmod(step, epoch_steps)
        spare = len(self) - epoch_steps * size
        start = place * size + (epoch * (length // 3)) % (spare + 1)
        return torch.from_numpy(self._tokens[start : start + size].astype(np.int64)).view(rows, length)
