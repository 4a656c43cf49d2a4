"""The C++ engine as an object: what `step.h` declares, with Python's types."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoutnik.engine.kernels.build import library

FORMATS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}


class Kind(IntEnum):
    """Operations of a program; `step.h` says what each does."""

    EMBED = 0
    NORM = 1
    PACK = 2
    LINEAR = 3
    ROTATE = 4
    REMEMBER = 5
    ATTEND = 6
    ROUTE = 7
    SPREAD = 8
    GATHER = 9
    PICK = 10
    CARRY = 11


class Ending(IntEnum):
    """What LINEAR does with its sums (its `flag`); `linear.h` says what each is."""

    STORE = 0
    ADD = 1
    GATE = 2


class Space(IntEnum):
    """What the rows of a buffer or an operation are."""

    TOKENS = 0
    PICKED = 1
    SLOTS = 2


class Operation(ctypes.Structure):
    """`Operation` of step.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in (
            "kind", "space", "from_", "from_offset", "from_stride", "to", "to_offset", "to_stride",
            "width", "heads", "weight", "constant", "layer", "flag",
        )),
        ("number", ctypes.c_float),
    ]  # fmt: skip


class Router(ctypes.Structure):
    """`Router` of step.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("experts", "groups", "open_groups", "top_k", "sigmoid", "best", "normalise", "bias")),
        ("scaling", ctypes.c_float),
    ]  # fmt: skip


class Addition(ctypes.Structure):
    """`Addition` of adapter.h; all zero where nothing is added."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("down", "up", "scale", "reach")),
        *((name, ctypes.c_int32) for name in ("inputs", "ranks", "bf16")),
    ]  # fmt: skip


class _Follow(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("first", "last", "sequences", "unused")),
        *((name, ctypes.c_void_p) for name in ("counts", "rooms", "begins", "pages", "kept", "drawn")),
    ]  # fmt: skip


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "chunks", "picked", "first", "last")),
        *((name, ctypes.c_void_p) for name in (
            "tokens", "chunk_table", "pages", "picked_rows", "draws", "drawn", "logits", "sources", "follow",
        )),
    ]  # fmt: skip


DRAW = np.dtype([("uniform", "f8"), ("top_p", "f8"), ("temperature", "f4"), ("top_k", "i4"), ("forced", "i4"), ("", "i4"), ("seed", "u8")])
"""How a picked row's token is drawn; see sampler.h. `forced` is -1 to draw, `uniform` -1 to draw by seed and position."""
DRAWN = np.dtype([("token", "i4"), ("logprob", "f4")])


class Follow:
    """What a call goes on with after its picks are drawn; `Follow` of step.h.

    `counts` says how many picks each sequence has, `rooms` how many of them may count, `begins` where its pages begin in `pages`, and
    `operations` what the drawn tokens that count are fed to. A call with `operations` sets `kept`, how many those are of each sequence,
    and `drawn`, the guesses (DRAWN).
    """

    def __init__(
        self, operations: range, counts: NDArray[np.int32], rooms: NDArray[np.int32], begins: NDArray[np.int32], pages: NDArray[np.int32]
    ):
        self.kept, self.drawn = np.ones(len(counts), np.int32), np.empty(len(counts), DRAWN)
        self._arrays = counts, rooms, np.ascontiguousarray(begins), pages, self.kept, self.drawn
        self.native = _Follow(operations.start, operations.stop, len(counts), 0, *map(address, self._arrays))


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one sequence that a step works on, and the pages that hold the sequence (enough for these tokens)."""

    tokens: Sequence[int]
    position: int
    pages: Sequence[int]
    adapter: int = -1
    """Its number, -1 for none."""


class NativeEngine:
    """Owns packed weights, the cache's pages, and a team of threads. Not thread-safe; unusable after a fork."""

    def __init__(self, threads: int | None = None, march: str = "native"):
        self._library = library(march)
        self._library.spoutnik_new.restype = ctypes.c_void_p
        self._library.spoutnik_page.restype = ctypes.c_void_p
        self._library.spoutnik_page_bytes.restype = ctypes.c_uint64
        self._library.spoutnik_logits.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._library.spoutnik_new(ctypes.c_int32(threads or torch.get_num_threads())))
        self._owner = os.getpid()
        self._kept: list[Tensor] = []
        self.vocabulary = self.most_rows = self.most_picked = 0
        self._main = range(0)

    def close(self) -> None:
        """Gives memory and threads back."""
        if self._handle and os.getpid() == self._owner:
            self._library.spoutnik_free(self._handle)
        self._handle = ctypes.c_void_p()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()

    def weight(self, precision: str, outputs: int, inputs: int) -> int:
        """Makes room for a matrix [outputs, inputs] in a format and returns its number; `pack` fills it."""
        return int(self._library.spoutnik_weight(self._handle, FORMATS[precision], outputs, inputs))

    def pack(self, weight: int, matrix: Tensor, bias: Tensor | None = None) -> None:
        """Puts a matrix, and a bias [outputs] or none, into a weight's memory."""
        in_bf16 = matrix.dtype == torch.bfloat16
        matrix = matrix.detach().contiguous() if in_bf16 else _floats(matrix)
        bias = None if bias is None else _floats(bias)
        self._library.spoutnik_pack(self._handle, weight, _pointer(matrix), int(in_bf16), _pointer(bias))

    def constant(self, values: Tensor, number: int | None = None) -> int:
        """Shows the engine a contiguous tensor, float32 (or a bfloat16 table), which it reads in place; returns its number.

        With a number, that constant is read from here from now on.
        """
        if number is None:
            number = len(self._kept)
            self._kept.append(values)
        else:
            self._kept[number] = values
        self._library.spoutnik_constant(self._handle, ctypes.c_int32(number), _pointer(values))
        return number

    def router(self, router: Router) -> int:
        """Adds a router and returns its number."""
        return int(self._library.spoutnik_router(self._handle, ctypes.byref(router)))

    def program(
        self, operations: Sequence[Operation], buffers: Sequence[tuple[int, Space]], packed_width: int, most_rows: int, most_picked: int,
        most_tokens: int, query_heads: int, vocabulary: int, main: range | None = None,
    ) -> None:  # fmt: skip
        """Sets the operations and makes their buffers, (width, rows' space) each. The last operation of a step writes the logits.

        `main` are those that a step runs unless told otherwise (None: all).
        """
        self.vocabulary, self.most_rows, self.most_picked = vocabulary, most_rows, most_picked
        self._main = range(len(operations)) if main is None else main
        widths = np.array([width for width, _ in buffers], dtype=np.int32)
        spaces = np.array([space for _, space in buffers], dtype=np.int32)
        self._library.spoutnik_program(
            self._handle, (Operation * len(operations))(*operations), len(operations), _array(widths), _array(spaces), len(buffers),
            packed_width, most_rows, most_picked, most_tokens, query_heads, vocabulary,
        )  # fmt: skip

    def adapter(self, number: int, additions: Sequence[Addition]) -> None:
        """Sets what an adapter adds to the program's products, or with none takes it away. What they point to must stay where it is."""
        self._library.spoutnik_adapter(self._handle, number, (Addition * len(additions))(*additions), len(additions))

    def cache(self, bf16: bool, layers: int, heads: int, key: int, value: int, pages: int) -> None:
        """Makes a cache of so many pages, all zero. Memory is taken as pages are written."""
        self._page_bytes = self.page_bytes(bf16, layers, heads, key, value)
        if not self._library.spoutnik_cache(self._handle, int(bf16), layers, heads, key, value, pages):
            raise MemoryError(f"no address space for a cache of {pages} pages")

    def page_bytes(self, bf16: bool, layers: int, heads: int, key: int, value: int) -> int:
        """The size of one page of such a cache."""
        return int(self._library.spoutnik_page_bytes(int(bf16), layers, heads, key, value))

    def page(self, page: int) -> memoryview:
        """The bytes of one page, writable."""
        place = self._library.spoutnik_page(self._handle, page)
        return memoryview((ctypes.c_char * self._page_bytes).from_address(place)).cast("B")

    def step(
        self, chunks: Sequence[Chunk], picked_rows: Sequence[int], draws: NDArray[np.void], with_logits: bool = False
    ) -> tuple[NDArray[np.void], Tensor | None]:
        """Runs the program over the chunks' tokens, row after row.

        `picked_rows` are the rows whose logits are wanted and `draws` (DRAW) says what is made of each. Returns DRAWN, and the logits
        [picked, vocabulary] float32 where asked for.
        """
        tokens = np.fromiter((token for chunk in chunks for token in chunk.tokens), np.int32)
        return self.run(tokens, *layout(chunks), np.asarray(picked_rows, dtype=np.int32), draws, with_logits)

    def run(
        self, tokens: NDArray[np.int32], table: NDArray[np.int32], pages: NDArray[np.int32], picked: NDArray[np.int32],
        draws: NDArray[np.void], with_logits: bool = False, *, operations: range | None = None, sources: NDArray[np.int32] | None = None,
        follow: Follow | None = None, drawn: NDArray[np.void] | None = None,
    ) -> tuple[NDArray[np.void], Tensor | None]:  # fmt: skip
        """As `step`, with the tokens of all chunks in a row and with what `layout` makes of the chunks.

        `sources` are the rows of the call before that CARRY takes, one for each row of this one. `follow` is what comes next in the same
        call; with `drawn`, nothing comes before it: that is what an earlier call with the same arguments has drawn.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("this engine was made before a fork; make a new one in this process")
        if len(tokens) > self.most_rows or len(picked) > self.most_picked:
            raise ValueError(f"a step takes {self.most_rows} rows and {self.most_picked} picks, not {len(tokens)} and {len(picked)}")
        if drawn is not None:
            operations = range(0)
        elif operations is None:
            operations = self._main
        drawn = np.empty(len(picked), DRAWN) if drawn is None else drawn
        logits = torch.empty(len(picked), self.vocabulary) if with_logits else None
        batch = _Batch(
            len(tokens), len(table), len(picked), operations.start, operations.stop, address(tokens), address(table), address(pages),
            address(picked), address(draws), address(drawn), None if logits is None else logits.data_ptr(),
            None if sources is None else address(sources), None if follow is None else ctypes.addressof(follow.native),
        )  # fmt: skip
        self._library.spoutnik_step(self._handle, ctypes.byref(batch))
        return drawn, logits

    def logits(self, picks: int) -> NDArray[np.float32]:
        """[picks, vocabulary] what the last call made of its picks, where it lies; the next call writes over it."""
        values = (ctypes.c_float * (picks * self.vocabulary)).from_address(self._library.spoutnik_logits(self._handle))
        return np.ctypeslib.as_array(values).reshape(picks, self.vocabulary)

    def decide(self, choices: NDArray[np.void]) -> None:
        """Makes choices (`CHOICE` of steered.py) among the picks of the last call, whose numbers must be below that of its picks."""
        self._library.spoutnik_decide(self._handle, _array(choices), len(choices))


def layout(chunks: Sequence[Chunk]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The chunks as [chunks, 5] (first row, rows, position, where its pages begin, adapter) and all their pages in a row."""
    lengths = [len(chunk.tokens) for chunk in chunks]
    table = np.empty((len(chunks), 5), np.int32)
    table[:, 0] = np.cumsum([0, *lengths[:-1]])
    table[:, 1] = lengths
    table[:, 2] = [chunk.position for chunk in chunks]
    table[:, 3] = np.cumsum([0, *(len(chunk.pages) for chunk in chunks[:-1])])
    table[:, 4] = [chunk.adapter for chunk in chunks]
    return table, np.fromiter((page for chunk in chunks for page in chunk.pages), np.int32)


def _floats(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def address(array: NDArray[np.generic]) -> int:
    """As `array.ctypes.data`, at a fraction of its cost."""
    number: int = array.__array_interface__["data"][0]
    return number


def _array(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(array))
