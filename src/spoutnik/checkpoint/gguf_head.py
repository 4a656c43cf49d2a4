"""What stands before the tensors of a GGUF file: metadata, and each tensor's name, shape, format and place. Needs no torch.

Every count, length and size is checked against the file before it is believed.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spoutnik.errors import Phrase, UserError

SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"), 5: np.dtype("<i4"),
    6: np.dtype("<f4"), 7: np.dtype("?"), 10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}  # fmt: skip
STRING, ARRAY = 8, 9
LARGEST = float(np.finfo(np.float32).max)
LEAST_PAIR, LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
"""Bytes of the shortest possible metadata pair and tensor description: what a declared count needs at least."""


@dataclass(frozen=True)
class Announced:
    """What a file says of one tensor, not yet compared with its size. `shape` is slowest first, `offset` counts from the first tensor."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class Head:
    """An open GGUF file's `metadata` by key and what it announces of its tensors by name; `base` is where the first of them starts."""

    def __init__(self, path: str | Path):
        """Reads the head of the file. Raises UserError for anything that the file's size or the format contradicts."""
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError("{path} is not a file; give the path of a GGUF file", path=self.path)
        if self.path.stat().st_size < 24:
            raise UserError("{path} is too short to be a GGUF file; copy it again", path=self.path)
        with self.path.open("rb") as stream:
            # Nobody writes to it; but torch takes only memory that may be written to.
            self.content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        cursor = Cursor(self.path, self.content)
        tensor_count, pair_count = _counts(cursor)
        self.metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = cursor.string(Phrase("a metadata key"))
            if key in self.metadata:
                cursor.fail("gives the key {key} twice", key=key)
            self.metadata[key] = cursor.value(key)
        self.alignment = _alignment(cursor, self.metadata)
        self.announced: dict[str, Announced] = {}
        for _ in range(tensor_count):
            name = cursor.string(Phrase("a tensor's name"))
            if name in self.announced:
                cursor.fail("describes the tensor {name} twice", name=name)
            self.announced[name] = _announced(cursor, name)
        self.base = -(-cursor.position // self.alignment) * self.alignment


class Fields:
    """The metadata of one architecture in a file, with their types checked: `x` is the key `architecture.x`."""

    def __init__(self, file: Head, architecture: str):
        self.file, self.architecture = file, architecture

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it is, or the default where the file has none."""
        return self.file.metadata.get(f"{self.architecture}.{name}", default)

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number. Raises UserError for anything else, and where there is neither value nor default."""
        value = self.get(name, default)
        if type(value) is not int:
            raise self._wrong(name, value, Phrase("a whole number"))
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number. Files keep single precision: it becomes the shortest decimal number that this precision stands for."""
        value = self.get(name, default)
        if type(value) not in (int, float) or not abs(value) <= LARGEST:
            raise self._wrong(name, value, Phrase("a number"))
        return float(str(np.float32(value)))

    def _wrong(self, name: str, value: Any, wanted: Phrase) -> UserError:
        return UserError(
            "{path} gives {architecture}.{name} as {value!r}, expected {wanted}; convert it again",
            path=self.file.path, architecture=self.architecture, name=name, value=value, wanted=wanted,
        )  # fmt: skip


class Cursor:
    """A position in the file that never moves beyond its end."""

    def __init__(self, path: Path, content: mmap.mmap):
        self.path, self.content, self.position, self.size = path, content, 0, len(content)

    def fail(self, found: str, **values: Any) -> None:
        raise UserError(
            "{path} {found} (near byte {position} of {size}); copy the file again",
            path=self.path, found=Phrase(found, **values), position=self.position, size=self.size,
        )  # fmt: skip

    def take(self, count: int, what: str | Phrase) -> int:
        """Advances by `count` bytes, which must be there; returns where they start."""
        if count > self.size - self.position:
            self.fail("announces {count} bytes for {what}, more than are left", count=count, what=what)
        self.position += count
        return self.position - count

    def scalar(self, dtype: np.dtype[Any], what: str | Phrase) -> Any:
        start = self.take(dtype.itemsize, what)
        return np.frombuffer(self.content, dtype, 1, start)[0].item()

    def number(self, what: str | Phrase) -> int:
        return int.from_bytes(self.content[self.take(8, what) : self.position], "little")

    def string(self, what: str | Phrase) -> str:
        start = self.take(self.number(what), what)
        try:
            return self.content[start : self.position].decode("utf-8")
        except UnicodeDecodeError:
            self.fail("holds {what} that is not UTF-8", what=what)
            raise

    def value(self, key: str) -> Any:
        """A metadata value: scalar, string, or flat array of these."""
        kind = self.scalar(SCALARS[4], key)
        if kind == STRING:
            return self.string(key)
        return self._array(key) if kind == ARRAY else self.scalar(self._dtype(kind, key), key)

    def _array(self, key: str) -> list[Any]:
        kind, length = self.scalar(SCALARS[4], key), self.number(key)
        if kind == STRING:
            if length > (self.size - self.position) // 8:
                self.fail("announces {length} strings in {key}, more than fit", length=length, key=key)
            return [self.string(key) for _ in range(length)]
        dtype = self._dtype(kind, key)
        start = self.take(length * dtype.itemsize, key)
        return np.frombuffer(self.content, dtype, length, start).tolist()

    def _dtype(self, kind: int, key: str) -> np.dtype[Any]:
        if kind not in SCALARS:
            self.fail("gives {key} the unknown type {kind}", key=key, kind=kind)
        return SCALARS[kind]


def _counts(cursor: Cursor) -> tuple[int, int]:
    """(tensors, metadata pairs), known to be possible in a file of this size."""
    magic = cursor.content[cursor.take(4, Phrase("the magic number")) : 4]
    version = cursor.scalar(SCALARS[4], Phrase("the version"))
    if magic != b"GGUF" or version not in (2, 3):
        raise UserError(
            "{path} starts with {magic!r}, version {version}, expected b'GGUF', version 2 or 3 in little-endian order",
            path=cursor.path,
            magic=magic,
            version=version,
        )
    tensors, pairs = cursor.number(Phrase("the number of tensors")), cursor.number(Phrase("the number of metadata pairs"))
    if tensors * LEAST_TENSOR + pairs * LEAST_PAIR > cursor.size - cursor.position:
        cursor.fail("announces {tensors} tensors and {pairs} metadata pairs, more than fit", tensors=tensors, pairs=pairs)
    return tensors, pairs


def _alignment(cursor: Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 2**20 or alignment & (alignment - 1):
        cursor.fail("gives an alignment of {alignment!r}, expected a power of two from 8", alignment=alignment)
    return int(alignment)


def _announced(cursor: Cursor, name: str) -> Announced:
    dimensions = cursor.scalar(SCALARS[4], name)
    if not 1 <= dimensions <= 4:
        cursor.fail("gives {name} {dimensions} dimensions, expected 1 to 4", name=name, dimensions=dimensions)
    fastest_first = [cursor.number(name) for _ in range(dimensions)]
    kind, offset = cursor.scalar(SCALARS[4], name), cursor.number(name)
    return Announced(tuple(reversed(fastest_first)), kind, offset)
