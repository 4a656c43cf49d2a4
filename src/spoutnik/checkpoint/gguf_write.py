"""GGUF files out: written beside their place, on disk whole, then renamed. Format: see `gguf.py`, which reads them."""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spoutnik.checkpoint.gguf_dequant import TYPES, QuantType
from spoutnik.checkpoint.gguf_quant import quantise
from spoutnik.errors import UserError
from spoutnik.run.stage import sync

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
NUMBERS = {kind.name: number for number, kind in TYPES.items()}


@dataclass(frozen=True)
class Outgoing:
    """One tensor to write: `shape` in torch's order, and where its float32 values come from when its turn is there."""

    name: str
    shape: tuple[int, ...]
    kind: QuantType
    read: Callable[[], NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) // self.kind.values * self.kind.nbytes


def write_gguf(path: str | Path, metadata: Mapping[str, Any], tensors: Sequence[Outgoing]) -> None:
    """Writes version 3. A file already there stays whole until the new one is on disk.

    Metadata become strings, booleans, unsigned and 32-bit float numbers, and arrays of strings or 32-bit integers. Raises UserError if the
    disk is full or not writable, or a weight does not fit its type.
    """
    path = Path(path).absolute()
    aside = path.with_name(f".{path.name}.saving")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            _write(stream, metadata, tensors)
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"The model cannot be written to {path} ({error}); make room or choose another place, and write again.") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _write(stream: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[Outgoing]) -> None:
    stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        stream.write(_text(key) + _value(value))
    offset = 0
    for tensor in tensors:
        dimensions = len(tensor.shape)
        stream.write(_text(tensor.name) + struct.pack(f"<I{dimensions}Q", dimensions, *reversed(tensor.shape)))
        stream.write(struct.pack("<IQ", NUMBERS[tensor.kind.name], offset))
        offset += tensor.nbytes + _gap(tensor.nbytes)
    stream.write(bytes(_gap(stream.tell())))
    for tensor in tensors:
        content = quantise(tensor.name, tensor.read(), tensor.kind)
        if len(content) != tensor.nbytes:
            raise RuntimeError(f"{tensor.name} was announced with {tensor.nbytes} bytes and has {len(content)}")
        stream.write(content.data)
        stream.write(bytes(_gap(tensor.nbytes)))


def _gap(position: int) -> int:
    return -position % ALIGNMENT


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """The type's number and the value."""
    match value:
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", UINT32, value)
        case float():
            return struct.pack("<If", FLOAT32, value)
        case str():
            return struct.pack("<I", STRING) + _text(value)
        case [] | [str(), *_]:
            return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
        case [*numbers]:
            return struct.pack("<IIQ", ARRAY, INT32, len(numbers)) + np.array(numbers, "<i4").tobytes()
    raise TypeError(f"metadata cannot hold {value!r}")
