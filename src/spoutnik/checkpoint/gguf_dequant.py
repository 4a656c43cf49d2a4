"""ggml's block formats back to float32, a block a row, all rows at once; the same bits as ggml's reference.

Each format is a record of scales and packed integers. The `K` formats have super-blocks of 256 values in 8 or 16 sub-blocks whose scales
are integers themselves, packed in 6 bits in Q4_K and Q5_K. Source: ggml-quants.c.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 15
"""Blocks unpacked at a time, so that the intermediate arrays stay small whatever the tensor's size."""


@dataclass(frozen=True)
class QuantType:
    """A storage format: `values` numbers in a record of `nbytes` bytes."""

    name: str
    values: int
    record: np.dtype[Any]
    unpack: Callable[[Records], Floats]

    @property
    def nbytes(self) -> int:
        return self.record.itemsize

    def dequantise(self, raw: Bytes) -> Floats:
        """The numbers in `raw`, float32 and flat; its length is a multiple of `nbytes`."""
        blocks = raw.view(self.record)
        out = np.empty((len(blocks), self.values), np.float32)
        for start in range(0, len(blocks), CHUNK):
            out[start : start + CHUNK] = self.unpack(blocks[start : start + CHUNK]).reshape(-1, self.values)
        return out.reshape(-1)


def _scale(blocks: Records, field: str) -> Floats:
    """A half-precision scale of each block, as a column."""
    return blocks[field].astype(np.float32)[:, None]


def _nibbles(packed_BN: Bytes) -> Bytes:
    """Low halves of all bytes, then high halves: [B, 2 N]."""
    return np.concatenate((packed_BN & 0x0F, packed_BN >> 4), axis=1)


def _bf16(blocks: Records) -> Floats:
    return (blocks["x"].astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Records) -> Floats:
    return _scale(blocks, "d") * (_nibbles(blocks["q"]).astype(np.float32) - 8)


def _q4_1(blocks: Records) -> Floats:
    return _scale(blocks, "d") * _nibbles(blocks["q"]).astype(np.float32) + _scale(blocks, "m")


def _q8_0(blocks: Records) -> Floats:
    return _scale(blocks, "d") * blocks["q"].astype(np.float32)


def _sub_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """(scales, minima), each [B, 8] of 6 bits, from 12 bytes a block.

    Bytes 0-3 and 4-7 hold the first four scales and minima in their low 6 bits, and in their high 2 bits the top of the last four, whose
    low 4 bits are the halves of bytes 8-11.
    """
    scale, minimum, low = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((scale & 63, (low & 0x0F) | (scale >> 6 << 4)), axis=1)
    minima = np.concatenate((minimum & 63, (low >> 4) | (minimum >> 6 << 4)), axis=1)
    return scales, minima


def _low_bits(blocks: Records) -> Bytes:
    """[B, 8, 32]: each run of 32 bytes holds one sub-block in its low halves and the next in its high halves."""
    runs = blocks["q"].reshape(-1, 4, 32)
    return np.stack((runs & 0x0F, runs >> 4), axis=2).reshape(-1, 8, 32)


def _scaled_by_sub_block(blocks: Records, quants: Bytes) -> Floats:
    """d * scale * q - dmin * minimum, for sub-blocks of 32."""
    scales, minima = _sub_scales(blocks["s"])
    step = (_scale(blocks, "d") * scales.astype(np.float32))[:, :, None]
    offset = (_scale(blocks, "m") * minima.astype(np.float32))[:, :, None]
    return step * quants.astype(np.float32) - offset


def _q4_k(blocks: Records) -> Floats:
    return _scaled_by_sub_block(blocks, _low_bits(blocks))


def _q5_k(blocks: Records) -> Floats:
    """Bit i of the 32 bytes `h` is the fifth bit of sub-block i."""
    fifth = (blocks["h"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return _scaled_by_sub_block(blocks, (_low_bits(blocks) | (fifth << 4)).astype(np.uint8))


def _q6_k(blocks: Records) -> Floats:
    """Two halves of 128 values: 64 bytes of low nibbles and 32 bytes of high bit pairs, in runs of 32; 16 signed scales."""
    low = blocks["q"].reshape(-1, 2, 1, 64)
    high = blocks["h"].reshape(-1, 2, 1, 32)
    low_runs = np.concatenate((low & 0x0F, low >> 4), axis=2).reshape(-1, 2, 4, 32)
    high_runs = (high >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]) & 3
    quants = (low_runs | (high_runs << 4)).reshape(-1, 16, 16).astype(np.float32) - 32
    return (_scale(blocks, "d") * blocks["s"].astype(np.float32))[:, :, None] * quants


def _record(*fields: tuple[str, str] | tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype(list(fields))


TYPES = {
    0: QuantType("F32", 1, _record(("x", "<f4")), lambda blocks: blocks["x"]),
    1: QuantType("F16", 1, _record(("x", "<f2")), lambda blocks: blocks["x"].astype(np.float32)),
    2: QuantType("Q4_0", 32, _record(("d", "<f2"), ("q", "u1", 16)), _q4_0),
    3: QuantType("Q4_1", 32, _record(("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)), _q4_1),
    8: QuantType("Q8_0", 32, _record(("d", "<f2"), ("q", "i1", 32)), _q8_0),
    12: QuantType("Q4_K", 256, _record(("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("q", "u1", 128)), _q4_k),
    13: QuantType("Q5_K", 256, _record(("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)), _q5_k),
    14: QuantType("Q6_K", 256, _record(("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")), _q6_k),
    30: QuantType("BF16", 1, _record(("x", "<u2")), _bf16),
}
"""By ggml's type number."""
