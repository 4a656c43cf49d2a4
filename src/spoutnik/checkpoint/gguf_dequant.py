"""ggml's block formats back to numbers, a block a row, many rows at once; in float32 the same bits as ggml's reference.

Each format is a record of scales and packed integers. The `K` formats have super-blocks of 256 values in 8 or 16 sub-blocks whose scales
are integers themselves, packed in 6 bits in Q4_K and Q5_K. Source: ggml-quants.c.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Records = NDArray[np.void]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 17
"""Values unpacked at a time: what they pass through on the way stays in a core's cache."""


@dataclass(frozen=True)
class QuantType:
    """A storage format: `values` numbers in a record of `nbytes` bytes. `unpack` gives float32 in any shape, block after block."""

    name: str
    values: int
    record: np.dtype[Any]
    unpack: Callable[[Records], Tensor]

    @property
    def nbytes(self) -> int:
        return self.record.itemsize

    def dequantise(self, raw: Bytes, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers in `raw`, computed in float32, in `dtype` and flat; its length is a multiple of `nbytes`."""
        blocks, step = raw.view(self.record), CHUNK // self.values
        out = torch.empty(len(blocks), self.values, dtype=dtype)
        for start in range(0, len(blocks), step):
            out[start : start + step] = self.unpack(blocks[start : start + step]).view(-1, self.values)
        return out.flatten()


def _field(blocks: Records, name: str) -> Tensor:
    """A field of every block, not copied."""
    return torch.from_numpy(blocks[name])


def _scale(blocks: Records, field: str) -> Tensor:
    """A half-precision scale of each block in float32, as a column."""
    return _field(blocks, field).float()[:, None]


def _nibbles(blocks: Records) -> Tensor:
    """Low halves of all bytes, then high halves, in float32: [B, 32]."""
    packed = _field(blocks, "q")
    halves = torch.empty(len(blocks), 32, dtype=torch.uint8)
    torch.bitwise_and(packed, 0x0F, out=halves[:, :16])
    torch.bitwise_right_shift(packed, 4, out=halves[:, 16:])
    return halves.float()


def _bf16(blocks: Records) -> Tensor:
    return _field(blocks, "x").view(torch.bfloat16).float()


def _q4_0(blocks: Records) -> Tensor:
    return _nibbles(blocks).sub_(8).mul_(_scale(blocks, "d"))


def _q4_1(blocks: Records) -> Tensor:
    return _nibbles(blocks).mul_(_scale(blocks, "d")).add_(_scale(blocks, "m"))


def _q8_0(blocks: Records) -> Tensor:
    return _field(blocks, "q").float().mul_(_scale(blocks, "d"))


def _sub_scales(blocks: Records) -> tuple[Tensor, Tensor]:
    """(scales, minima), each [B, 8, 1] float32 of 6 bits, from 12 bytes a block.

    Bytes 0-3 and 4-7 hold the first four scales and minima in their low 6 bits, and in their high 2 bits the top of the last four, whose
    low 4 bits are the halves of bytes 8-11.
    """
    scale, minimum, low = _field(blocks, "s").split(4, dim=1)
    scales = torch.cat((scale & 63, (low & 0x0F) | (scale >> 6 << 4)), dim=1)
    minima = torch.cat((minimum & 63, (low >> 4) | (minimum >> 6 << 4)), dim=1)
    return scales.float()[:, :, None], minima.float()[:, :, None]


def _low_bits(blocks: Records) -> Tensor:
    """[B, 8, 32]: each run of 32 bytes holds one sub-block in its low halves and the next in its high halves."""
    runs = _field(blocks, "q").reshape(-1, 4, 32)
    return torch.stack((runs & 0x0F, runs >> 4), dim=2).view(-1, 8, 32)


def _scaled_by_sub_block(blocks: Records, quants: Tensor) -> Tensor:
    """d * scale * q - dmin * minimum, for sub-blocks of 32."""
    scales, minima = _sub_scales(blocks)
    step, offset = _scale(blocks, "d")[:, None] * scales, _scale(blocks, "m")[:, None] * minima
    return quants.float().mul_(step).sub_(offset)


def _q4_k(blocks: Records) -> Tensor:
    return _scaled_by_sub_block(blocks, _low_bits(blocks))


def _q5_k(blocks: Records) -> Tensor:
    """Bit i of the 32 bytes `h` is the fifth bit of sub-block i."""
    fifth = _field(blocks, "h")[:, None] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    return _scaled_by_sub_block(blocks, _low_bits(blocks) | fifth << 4)


def _q6_k(blocks: Records) -> Tensor:
    """Two halves of 128 values: 64 bytes of low nibbles and 32 bytes of high bit pairs, in runs of 32; 16 signed scales."""
    low = _field(blocks, "q").reshape(-1, 2, 1, 64)
    high = _field(blocks, "h").reshape(-1, 2, 1, 32)
    low_runs = torch.cat((low & 0x0F, low >> 4), dim=2).view(-1, 2, 4, 32)
    high_runs = high >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None] & 3
    quants = (low_runs | high_runs << 4).view(-1, 16, 16).float().sub_(32)
    return quants.mul_((_scale(blocks, "d") * _field(blocks, "s").float())[:, :, None])


def _record(*fields: tuple[str, str] | tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype(list(fields))


TYPES = {
    0: QuantType("F32", 1, _record(("x", "<f4")), lambda blocks: _field(blocks, "x")),
    1: QuantType("F16", 1, _record(("x", "<f2")), lambda blocks: _field(blocks, "x").float()),
    2: QuantType("Q4_0", 32, _record(("d", "<f2"), ("q", "u1", 16)), _q4_0),
    3: QuantType("Q4_1", 32, _record(("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)), _q4_1),
    8: QuantType("Q8_0", 32, _record(("d", "<f2"), ("q", "i1", 32)), _q8_0),
    12: QuantType("Q4_K", 256, _record(("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("q", "u1", 128)), _q4_k),
    13: QuantType("Q5_K", 256, _record(("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)), _q5_k),
    14: QuantType("Q6_K", 256, _record(("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")), _q6_k),
    30: QuantType("BF16", 1, _record(("x", "<u2")), _bf16),
}
"""By ggml's type number."""
