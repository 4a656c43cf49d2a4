"""A teacher's distributions on disk: the likeliest tokens at every place of an answer and the mass of all others, in 300 bytes or less.

    header.json     format, fingerprint of the tokenizer and digest of the chat template that the texts are in, vocab_size, k, id_bytes,
                    and the teachers that they come from; written last, so without it nothing is whole
    spans.bin       two uint32 a sequence: its tokens, and the first that is an answer's
    tokens.bin      uint32 a token
    top.bin         a record for each token of an answer, of what could have stood there: K ids (little-endian, `id_bytes` each), K float16
                    log-probabilities, float32 log of the remaining mass

Nothing is lost but the shape of the tail: its mass is kept, so K + 1 probabilities sum to 1. Rounding to half precision is undone as far as
it can be: what is read is normalised.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.run.directory import write_whole
from spoutnik.teacher.base import Provenance, TopK

BYTES_A_TOKEN = 300
BESIDE = 4 + 4
"""The token and the remaining mass. A sequence's span is paid by its first token, which has no record."""
FORMAT = 2
FILES = ("spans.bin", "tokens.bin", "top.bin")
Sizes = tuple[int, int, int]
"""Bytes of FILES."""


def record_type(vocab_size: int, top_k: int | None = None) -> np.dtype[Any]:
    """The record of one token: `top_k` of the likeliest, or as many as fit into BYTES_A_TOKEN with all that lies beside them."""
    if vocab_size > 1 << 24:
        raise UserError(f"A vocabulary of {vocab_size} tokens needs ids of more than three bytes, which stored distributions do not have.")
    id_bytes = 2 if vocab_size <= 1 << 16 else 3
    k = min(top_k or (BYTES_A_TOKEN - BESIDE) // (id_bytes + 2), vocab_size)
    return np.dtype([("ids", np.uint8, (k, id_bytes)), ("logprobs", "<f2", (k,)), ("rest", "<f4")])


class LogitsWriter:
    """Writes distributions into a folder, sequence by sequence. `sizes` says how much of what is there already stays."""

    def __init__(self, folder: Path, vocab_size: int, top_k: int | None = None, sizes: Sizes = (0, 0, 0)):
        self._folder, self._vocab_size, self._record = folder, vocab_size, record_type(vocab_size, top_k)
        (folder / "header.json").unlink(missing_ok=True)
        self._files = [(folder / name).open("ab") for name in FILES]
        for file, size in zip(self._files, sizes, strict=True):
            file.truncate(size)

    def add(self, ids: Sequence[int], start: int, logprobs_NV: Tensor) -> None:
        """A sequence whose tokens from `start` on are the answer, and log-probabilities of what could stand at each of those N places."""
        if logprobs_NV.shape != (len(ids) - start, self._vocab_size) or start < 1:
            raise UserError(
                f"An answer of {len(ids) - start} tokens (from place {start}) came with log-probabilities of shape "
                f"{list(logprobs_NV.shape)}, expected [N, {self._vocab_size}] and a place of 1 or more."
            )
        parts = (np.array([len(ids), start], "<u4"), np.asarray(ids, "<u4"), _records(logprobs_NV.double(), self._record))
        for file, part in zip(self._files, parts, strict=True):
            file.write(part.tobytes())

    def sync(self) -> Sizes:
        """Forces all that was added onto disk and says how much that is."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        spans, tokens, top = (file.tell() for file in self._files)
        return spans, tokens, top

    def close(self, fingerprint: str, template: str | None, teachers: Sequence[Provenance] = ()) -> None:
        """Makes the folder whole: `fingerprint` is the tokenizer's, `template` the chat template that the prompts were made by."""
        self.sync()
        for file in self._files:
            file.close()
        k, id_bytes = self._record["ids"].shape
        header = {
            "format": FORMAT, "tokenizer": fingerprint, "chat_template": digest(template), "vocab_size": self._vocab_size, "k": k,
            "id_bytes": id_bytes, "teachers": list(teachers),
        }  # fmt: skip
        write_whole(self._folder / "header.json", json.dumps(header, indent=2, ensure_ascii=False) + "\n")


def _records(logprobs_NV: Tensor, record: np.dtype[Any]) -> np.ndarray[Any, Any]:
    k, id_bytes = record["ids"].shape
    top = logprobs_NV.topk(k, dim=-1)
    rest_N = logprobs_NV.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
    records = np.zeros(len(logprobs_NV), record)
    records["ids"] = top.indices.numpy().astype("<u4").view(np.uint8).reshape(*top.indices.shape, 4)[..., :id_bytes]
    records["logprobs"] = top.values.clamp(min=float(np.finfo(np.float16).min)).numpy()
    records["rest"] = rest_N.numpy()
    return records


class StoredLogits:
    """See `Distributions`: only of answers that were stored. Raises UserError for a folder that is not whole."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
            record = record_type(header["vocab_size"], header["k"])
            spans, self._tokens = (np.fromfile(folder / name, "<u4") for name in FILES[:2])
            self._lengths, self._firsts = spans.reshape(-1, 2).T.astype(np.int64)
            answers = int((self._lengths - self._firsts).sum())
            self._top = np.memmap(folder / FILES[2], record, "r") if answers else np.zeros(0, record)
            self.fingerprint, self.vocab_size = str(header["tokenizer"]), int(header["vocab_size"])
            self.template: str | None = header["chat_template"]
            self.teachers: list[Provenance] = list(header["teachers"])
            whole = header["format"] == FORMAT and self._lengths.sum() == len(self._tokens) and answers == len(self._top)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no stored distributions ({error}); write them anew.") from error
        if not whole:
            raise UserError(f"{folder} is of another format, or its files are not of one length; write them anew.")
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._records = np.concatenate([[0], np.cumsum(self._lengths - self._firsts)])
        self._place = {_key(*self.sequence(index)): index for index in range(len(self))}

    def __len__(self) -> int:
        return len(self._lengths)

    def sequence(self, index: int) -> tuple[list[int], int]:
        """(ids of a stored sequence, the place where its answer starts)"""
        return self._tokens[self._starts[index] : self._starts[index + 1]].tolist(), int(self._firsts[index])

    def top(self, index: int) -> TopK:
        """The distributions at each place of a stored answer."""
        records = np.array(self._top[self._records[index] : self._records[index + 1]])
        ids = np.zeros((*records["ids"].shape[:2], 4), np.uint8)
        ids[..., : records["ids"].shape[2]] = records["ids"]
        indices = torch.from_numpy(ids.view("<u4")[..., 0].astype(np.int64))
        logprobs, rest = torch.from_numpy(records["logprobs"].astype(np.float32)), torch.from_numpy(records["rest"].astype(np.float32))
        whole = torch.cat([logprobs, rest[:, None]], -1).logsumexp(-1)
        return TopK(indices, logprobs - whole[:, None], rest - whole)

    def logprobs(self, ids_BT: Tensor, mask_BT: Tensor) -> TopK:
        """Each row must be a stored sequence with its answer masked; what follows the answer is padding."""
        found = [self.top(self._index(ids, places)) for ids, places in zip(ids_BT.tolist(), mask_BT > 0, strict=True)]
        return TopK(*(torch.cat([getattr(top, name) for top in found]).to(ids_BT.device) for name in ("ids", "logprobs", "rest")))

    def _index(self, ids: list[int], places_T: Tensor) -> int:
        masked = places_T.nonzero().flatten().tolist()
        key = _key(ids[: masked[-1] + 1], masked[0]) if masked else b""
        if key not in self._place:
            raise UserError(f"{self.folder} does not hold this answer of {len(masked)} tokens; store the teacher's distributions of it.")
        return self._place[key]


def digest(template: str | None) -> str | None:
    """Names a chat template."""
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()


def _key(ids: Sequence[int], start: int) -> bytes:
    return hashlib.blake2b(np.asarray([start, *ids], "<u4").tobytes(), digest_size=16).digest()
