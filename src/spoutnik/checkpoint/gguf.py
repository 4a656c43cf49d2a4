"""GGUF files, mapped into memory: every count, length, size and offset is checked against the file before it is believed.

Format (version 2 and 3, little-endian): magic, version, number of tensors, number of metadata pairs; the pairs; a description of each
tensor; padding to the alignment; the tensors. Strings and arrays carry 64-bit lengths. Source: ggml's docs/gguf.md.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spoutnik.checkpoint.gguf_dequant import TYPES, QuantType
from spoutnik.checkpoint.gguf_head import Fields, Head
from spoutnik.errors import UserError

__all__ = ["GGUF", "Description", "Fields"]


@dataclass(frozen=True)
class Description:
    """One tensor of a file. `shape` is in torch's order, slowest first; `start` counts bytes from the beginning of the file."""

    shape: tuple[int, ...]
    type: QuantType
    start: int
    nbytes: int


class GGUF(Head):
    """An open GGUF file: `metadata` by key, `tensors` by name; `read` dequantises one tensor."""

    def __init__(self, path: str | Path):
        """Reads the head of the file. Raises UserError for anything that the file's size or the format contradicts."""
        super().__init__(path)
        self.tensors = _located(self)

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """The tensor `name` in `dtype` (its numbers are computed in float32), in its shape."""
        tensor = self.tensors[name]
        raw = np.frombuffer(self.content, np.uint8, tensor.nbytes, tensor.start)
        return tensor.type.dequantise(raw, dtype).view(tensor.shape)


def _located(head: Head) -> dict[str, Description]:
    """Where each tensor lies, known to be aligned, within the file and over no other."""
    size, found = len(head.content), {name: _description(head, name) for name in head.announced}
    end = head.base
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if head.announced[name].offset % head.alignment or tensor.start < end or tensor.nbytes > size - tensor.start:
            where = f"bytes {tensor.start} to {tensor.start + tensor.nbytes}"
            raise UserError(
                f"{head.path} places {name} at {where}: misaligned, over another tensor, or beyond the end ({size}); copy the file again"
            )
        end = tensor.start + tensor.nbytes
    return found


def _description(head: Head, name: str) -> Description:
    announced, size = head.announced[name], len(head.content)
    if announced.kind not in TYPES:
        known = ", ".join(quant.name for quant in TYPES.values())
        raise UserError(f"{head.path} stores {name} in ggml type {announced.kind}; Spoutnik reads {known}")
    quant, shape = TYPES[announced.kind], announced.shape
    values = math.prod(shape)
    if values == 0 or shape[-1] % quant.values or values // quant.values * quant.nbytes > size:
        raise UserError(f"{head.path} gives {name} the shape {shape}, impossible for {quant.name} in a file of {size} bytes; copy it again")
    return Description(shape, quant, head.base + announced.offset, values // quant.values * quant.nbytes)
