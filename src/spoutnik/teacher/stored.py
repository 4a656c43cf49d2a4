"""A teacher's distributions on disk: the likeliest tokens at each place and the mass of all others, 300 bytes a token or less.

A folder with
    header.json   tokenizer (by content), vocab_size, k, id_bytes, lengths of the sequences' sum, and where they come from
    lengths.bin   uint32 a sequence
    tokens.bin    uint32 a token
    top.bin       a record a token: K ids (little-endian, `id_bytes` each), K float16 log-probabilities, float32 log of the remaining mass

Nothing is lost but the shape of the tail: its mass is kept, so K + 1 probabilities sum to 1. Rounding to half precision is undone as far as
it can be: what is read is normalised.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.teacher.base import Provenance, TopK

BYTES_A_TOKEN = 300
BESIDE = 4 + 4 + 4
"""The token, the remaining mass, and at most one length."""
FORMAT = 1


def record_type(vocab_size: int, budget: int = BYTES_A_TOKEN) -> np.dtype[Any]:
    """The record of one token: as many of the likeliest as fit into `budget` bytes, with all that lies beside them."""
    id_bytes = 2 if vocab_size <= 1 << 16 else 3
    k = min((budget - BESIDE) // (id_bytes + 2), vocab_size)
    if k < 1 or vocab_size > 1 << 24:
        raise UserError(f"{budget} bytes a token hold no part of a distribution over {vocab_size} tokens; give more bytes.")
    return np.dtype([("ids", np.uint8, (k, id_bytes)), ("logprobs", "<f2", (k,)), ("rest", "<f4")])


def write_logits(
    folder: Path,
    fingerprint: str,
    vocab_size: int,
    sequences: Iterable[tuple[Sequence[int], Tensor]],
    teachers: Sequence[Provenance] = (),
    budget: int = BYTES_A_TOKEN,
) -> None:
    """Writes (token ids [T], log-probabilities of the next token [T, V]) of each sequence. The folder appears when it is whole."""
    record = record_type(vocab_size, budget)
    k, id_bytes = record["ids"].shape
    aside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with (aside / "lengths.bin").open("wb") as lengths, (aside / "tokens.bin").open("wb") as tokens, (aside / "top.bin").open("wb") as top:
        for ids, logprobs_TV in sequences:
            if logprobs_TV.shape != (len(ids), vocab_size):
                raise UserError(
                    f"{len(ids)} tokens came with log-probabilities of shape {list(logprobs_TV.shape)}, expected [T, {vocab_size}]."
                )
            lengths.write(np.uint32(len(ids)).tobytes())
            tokens.write(np.asarray(ids, "<u4").tobytes())
            top.write(_records(logprobs_TV.double(), record).tobytes())
        for file in (lengths, tokens, top):
            file.flush()
            os.fsync(file.fileno())
    header = {
        "format": FORMAT,
        "tokenizer": fingerprint,
        "vocab_size": vocab_size,
        "k": k,
        "id_bytes": id_bytes,
        "teachers": list(teachers),
    }
    (aside / "header.json").write_text(json.dumps(header, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(aside, folder)


def _records(logprobs_TV: Tensor, record: np.dtype[Any]) -> np.ndarray[Any, Any]:
    k, id_bytes = record["ids"].shape
    top = logprobs_TV.topk(k, dim=-1)
    rest_T = logprobs_TV.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
    records = np.zeros(len(logprobs_TV), record)
    records["ids"] = top.indices.numpy().astype("<u4").view(np.uint8).reshape(*top.indices.shape, 4)[..., :id_bytes]
    records["logprobs"] = top.values.clamp(min=float(np.finfo(np.float16).min)).numpy()
    records["rest"] = rest_T.numpy()
    return records


class StoredLogits:
    """See `Distributions`: only of sequences that were stored. Raises UserError for a folder that is not whole."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
            lengths = np.fromfile(folder / "lengths.bin", "<u4")
            self._tokens = np.fromfile(folder / "tokens.bin", "<u4")
            record = np.dtype([("ids", np.uint8, (header["k"], header["id_bytes"])), ("logprobs", "<f2", (header["k"],)), ("rest", "<f4")])
            self._top = np.memmap(folder / "top.bin", record, "r") if len(self._tokens) else np.zeros(0, record)
            self.fingerprint, self.vocab_size = str(header["tokenizer"]), int(header["vocab_size"])
            self.teachers: list[Provenance] = list(header["teachers"])
            whole = header["format"] == FORMAT and int(lengths.sum()) == len(self._tokens) == len(self._top)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no stored distributions ({error}); write them anew.") from error
        if not whole:
            raise UserError(f"{folder} is of another format, or its files are not of one length; write them anew.")
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._place = {_digest(self.tokens(index)): index for index in range(len(self))}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def tokens(self, index: int) -> list[int]:
        """Ids of a stored sequence."""
        return [int(token) for token in self._tokens[self._starts[index] : self._starts[index + 1]]]

    def top(self, index: int) -> TopK:
        """The distributions after each token of a stored sequence."""
        records = np.array(self._top[self._starts[index] : self._starts[index + 1]])
        ids = np.zeros((*records["ids"].shape[:2], 4), np.uint8)
        ids[..., : records["ids"].shape[2]] = records["ids"]
        indices = torch.from_numpy(ids.view("<u4")[..., 0].astype(np.int64))
        logprobs, rest = torch.from_numpy(records["logprobs"].astype(np.float32)), torch.from_numpy(records["rest"].astype(np.float32))
        whole = torch.cat([logprobs, rest[:, None]], -1).logsumexp(-1)
        return TopK(indices, logprobs - whole[:, None], rest - whole)

    def logprobs(self, token_ids: Sequence[int]) -> TopK:
        place = self._place.get(_digest(token_ids))
        if place is None:
            raise UserError(
                f"{self.folder} does not hold this sequence of {len(token_ids)} tokens; store the teacher's distributions of it."
            )
        return self.top(place)


def _digest(token_ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(token_ids, "<u4").tobytes(), digest_size=16).digest()
