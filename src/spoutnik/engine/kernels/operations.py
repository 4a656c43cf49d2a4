"""A program of the native engine as it is written: operations, buffers, weights, and where every number came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spoutnik.engine.kernels.build import DEPTH
from spoutnik.engine.kernels.native import FORMATS, Kind, NativeEngine, Operation, Space

Matrix = tuple[Tensor, Tensor | None]
Factors = tuple[Tensor, Tensor]
"""(down [rank, inputs], up [outputs, rank])"""


@dataclass(frozen=True)
class Site:
    """A product that adapters of `modules` may add to: how its rows follow from theirs, and its matrix's change from a module's."""

    modules: Sequence[nn.Linear]
    arrange: Callable[..., Tensor] = lambda *parts: torch.cat(parts)
    factors: Callable[[Tensor, Tensor], Factors] = lambda down, up: (down, up)


@dataclass
class Program:
    """Operations and buffers as they are written, and where every number came from, for a refresh."""

    engine: NativeEngine
    precision: str
    operations: list[Operation] = field(default_factory=list)
    buffers: dict[str, tuple[int, Space]] = field(default_factory=dict)
    packed_width: int = 0
    matrices: list[tuple[int, Callable[[], Matrix]]] = field(default_factory=list)
    vectors: list[tuple[Tensor, Callable[[], Tensor]]] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    entries: range = range(0)
    """Operations that store the keys and values of the multi-token prediction layer, if it was asked for."""
    drafts: range = range(0)
    """Operations that do so and go on to logits of the token after the next."""

    def refresh(self) -> None:
        """Reads the model's weights again, into the same memory; what is read in place is looked for where it is now."""
        for weight, source in self.matrices:
            self.engine.pack(weight, *source())
        for number, (_, read) in enumerate(self.vectors):
            now = read().detach().contiguous()
            self.vectors[number] = now, read
            self.engine.constant(now, number)

    def weight(self, source: Callable[[], Matrix], precision: str | None = None) -> int:
        """Packs a matrix [outputs, inputs] and perhaps a bias; returns the weight's number."""
        matrix, bias = source()
        number = self.engine.weight(precision or self.precision, *matrix.shape)
        self.engine.pack(number, matrix, bias)
        self.matrices.append((number, source))
        return number

    def constant(self, source: Callable[[], Tensor]) -> int:
        """Shows the engine a tensor that it reads in place; returns the constant's number."""
        kept = source().detach().contiguous()
        self.vectors.append((kept, source))
        return self.engine.constant(kept)

    def site(self, *sites: Site) -> int:
        """Adds sites of one product, one a head; returns the first one's number."""
        self.sites += sites
        return len(self.sites) - len(sites)

    def buffer(self, name: str, width: int, space: Space = Space.TOKENS) -> int:
        """The number of a named buffer, at least `width` wide."""
        known = self.buffers.get(name, (0, space))
        self.buffers[name] = (max(known[0], width), space)
        return list(self.buffers).index(name)

    def add(self, kind: Kind, space: Space = Space.TOKENS, **fields: Any) -> None:
        """Writes one operation down; fields not given are 0, a missing constant or buffer is -1."""
        self.operations.append(Operation(**{"from_": -1, "to": -1, "constant": -1, "heads": 1, **fields, "kind": kind, "space": space}))

    def pack(self, kind: Kind, source: int, width: int, precision: str | None = None, space: Space = Space.TOKENS, **fields: Any) -> None:
        """PACK or SPREAD."""
        self.packed_width = max(self.packed_width, -(-width // DEPTH) * DEPTH * fields.get("heads", 1))
        self.add(kind, space, from_=source, width=width, flag=FORMATS[precision or self.precision], **fields)
