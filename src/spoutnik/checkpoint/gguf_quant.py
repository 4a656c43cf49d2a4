"""Numbers into ggml's storage formats, all blocks at once; the same bits as ggml's reference quantisation.

A block is 32 numbers in a row: q8_0 and q4_0 keep integers and one half-precision scale, q4_1 also the minimum. Source: ggml-quants.c.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spoutnik.checkpoint.gguf_dequant import TYPES, Bytes, QuantType, Records
from spoutnik.errors import UserError

Floats = NDArray[np.float32]
CHUNK = 1 << 15
"""Blocks packed at a time, so that the intermediate arrays stay small whatever the tensor's size."""
FileType = Literal["f32", "f16", "q8_0", "q4_1", "q4_0"]
F32, F16, Q4_0, Q4_1, Q8_0 = (TYPES[number] for number in (0, 1, 2, 3, 8))
FORMATS: dict[FileType, QuantType] = {"f32": F32, "f16": F16, "q8_0": Q8_0, "q4_1": Q4_1, "q4_0": Q4_0}


def quantise(name: str, values: Floats, kind: QuantType) -> Bytes:
    """The bytes of tensor `name` (float32, any shape, rows of whole blocks) in `kind`, one of FORMATS.

    Raises UserError if a number, or a block's scale, is beyond what half precision holds.
    """
    rows = values.reshape(-1, kind.values)
    records = np.empty(len(rows), kind.record)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for start in range(0, len(rows), CHUNK):
            _FILL[kind.name](rows[start : start + CHUNK], records[start : start + CHUNK])
    for field in ("x", "d", "m"):
        if field in (kind.record.names or ()) and not np.isfinite(records[field]).all():
            raise UserError(f"{name} does not fit {kind.name.lower()}, whose numbers or scales end at 65504; choose another type.")
    return records.view(np.uint8)


def _plain(rows: Floats, records: Records) -> None:
    records["x"] = rows[:, 0]


def _inverse(scale_B: Floats) -> Floats:
    """1 / scale as a column, 0 where the scale is 0. The reference divides by the scale before it is rounded to half precision."""
    return np.where(scale_B == 0, np.float32(0), np.float32(1) / scale_B)[:, None]


def _half_bytes(quants_BN: Floats) -> Bytes:
    """Integers from 0 to 15: the first half of a block in the low halves of 16 bytes, the second in the high halves."""
    quants = quants_BN.astype(np.uint8).clip(0, 15)
    return quants[:, :16] | (quants[:, 16:] << 4)


def _q8_0(rows: Floats, records: Records) -> None:
    scale = np.abs(rows).max(1) / np.float32(127)
    exact = rows * _inverse(scale)
    whole = np.trunc(exact)
    records["d"] = scale
    records["q"] = whole + np.trunc(2 * (exact - whole))  # halves away from zero, without adding 0.5, which would round twice


def _q4_0(rows: Floats, records: Records) -> None:
    """The number of largest size becomes 0, whatever its sign: integers reach from -8 to 7."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)[:, 0]
    scale = largest / np.float32(-8)
    records["d"] = scale
    records["q"] = _half_bytes(np.trunc(rows * _inverse(scale) + np.float32(8.5)))


def _q4_1(rows: Floats, records: Records) -> None:
    least = rows.min(1)
    scale = (rows.max(1) - least) / np.float32(15)
    records["d"], records["m"] = scale, least
    records["q"] = _half_bytes(np.trunc((rows - least[:, None]) * _inverse(scale) + np.float32(0.5)))


_FILL = {"F32": _plain, "F16": _plain, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
