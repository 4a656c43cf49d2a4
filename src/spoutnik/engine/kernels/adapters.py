"""Adapters as the C++ engine reads them (adapter.h): what each adds to each product of a program."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.checkpoint.adapter import Adapter, LowRank
from spoutnik.engine.kernels.native import Addition, NativeEngine
from spoutnik.engine.kernels.operations import Site
from spoutnik.engine.kernels.program import LANES
from spoutnik.model.transformer import CausalLM


class Adapters:
    """The adapters of an engine by name; the name of none is empty."""

    def __init__(self, engine: NativeEngine, model: CausalLM, sites: Sequence[Site]):
        self._engine, self._model, self._sites = engine, model, sites
        self.known = {"": (-1, bytes(32))}
        """Number, as a `Chunk` names it, and what tells the pages of this adapter from those of another."""
        self._packed: dict[str, Packed] = {}

    def add(self, name: str, adapter: Adapter) -> None:
        """Packs an adapter, between steps."""
        packed = pack_adapter(adapter, self._model, self._sites)
        taken = {number for number, _ in self.known.values()}
        number = next(number for number in range(len(taken)) if number not in taken)
        self._engine.adapter(number, packed.additions)
        self._packed[name], self.known[name] = packed, (number, adapter.fingerprint)

    def remove(self, name: str) -> None:
        """Gives an adapter's memory back, between steps."""
        number, _ = self.known.pop(name)
        self._engine.adapter(number, [])
        del self._packed[name]


@dataclass
class Packed:
    """An addition for each site of a program, and the tensors that these point to."""

    additions: list[Addition] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)


def pack_adapter(adapter: Adapter, model: CausalLM, sites: Sequence[Site]) -> Packed:
    """Lays an adapter out for a program of this model. A product's numbers stay bfloat16 if all are, else they become float32."""
    modules = dict(model.named_modules())
    changes = {modules[name]: change for name, change in adapter.modules.items()}
    packed, panels = Packed(), _Panels()
    for site in sites:
        own = [changes.get(module) for module in site.modules]
        if not any(own):
            packed.additions.append(Addition())
            continue
        down, up, scale, reach = tensors = _lay_out(site, own, panels)
        pointers = (tensor.data_ptr() for tensor in (down, up, scale, reach))
        packed.additions.append(Addition(*pointers, down.shape[1], len(scale), down.dtype == torch.bfloat16))
        packed.tensors += tensors
    return packed


class _Panels:
    """Matrices in panels of 16 rows. Heads share what they have in common: one side of the matrix that rebuilds keys and values."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, torch.Size, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    def of(self, matrix_OI: Tensor) -> Tensor:
        """[O / 16, I, 16], padded with zeros."""
        key = (matrix_OI.data_ptr(), matrix_OI.shape, matrix_OI.stride())
        if key not in self._known:  # the matrix is kept, too, so that no other can come to lie where it lay
            self._known[key] = matrix_OI, _in_panels(matrix_OI).mT.contiguous()
        return self._known[key][1]


def _lay_out(site: Site, changes: Sequence[LowRank | None], panels: _Panels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`down`, `up`, `scale` and `reach` of a product, with the ranks of its modules one after another."""
    present = [change for change in changes if change is not None]
    factors = [site.factors(change.down, change.up) for change in present]
    in_bf16 = all(matrix.dtype == torch.bfloat16 for pair in factors for matrix in pair)
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    downs, ups = ([matrix.to(dtype) for matrix in part] for part in zip(*factors, strict=True))
    scale = torch.cat([torch.full((len(change.down),), change.scale) for change in present])
    scale = F.pad(scale, (0, -len(scale) % LANES))
    if len(changes) == 1:
        packed = panels.of(ups[0])
        ranks = packed.shape[1]
        reach = torch.tensor([[panel * ranks, 0, ranks] for panel in range(len(packed))], dtype=torch.int32)
        return panels.of(downs[0]), packed, scale, reach
    given = iter(ups)
    packed, reach = _side_by_side(site, [None if change is None else next(given) for change in changes])
    return panels.of(torch.cat(downs)), packed, scale, reach


def _side_by_side(site: Site, ups: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """`up` and `reach` of several modules' [outputs, ranks], of each panel only the ranks of the modules that have outputs in it."""
    present = [up for up in ups if up is not None]
    total, dtype = sum(up.shape[1] for up in present), present[0].dtype
    wide, spans, begin = [], [], 0
    for module, up_OR in zip(site.modules, ups, strict=True):
        end = begin + (0 if up_OR is None else up_OR.shape[1])
        wide_OR = torch.zeros(module.out_features, total, dtype=dtype)
        if up_OR is not None:
            wide_OR[:, begin:end] = up_OR
        wide.append(wide_OR)
        spans.append(torch.tensor([begin, end]).expand(module.out_features, 2))
        begin = end
    arranged_PLR, spans_PL2 = (_in_panels(site.arrange(*parts)) for parts in (wide, spans))
    reach_P3, packed, at = torch.empty(len(arranged_PLR), 3, dtype=torch.int32), [], 0
    first_P, end_P = spans_PL2[..., 0].amin(1), spans_PL2[..., 1].amax(1)
    for first, end in torch.stack([first_P, end_P], dim=1).unique(dim=0).tolist():
        alike = ((first_P == first) & (end_P == end)).nonzero().flatten()
        packed.append(arranged_PLR[alike, :, first:end].mT.flatten())
        reach_P3[alike, 0] = at + (end - first) * torch.arange(len(alike), dtype=torch.int32)
        reach_P3[alike, 1:] = torch.tensor([first, end - first], dtype=torch.int32)
        at += (end - first) * len(alike)
    return torch.cat(packed), reach_P3


def _in_panels(matrix_OI: Tensor) -> Tensor:
    """[O / 16, 16, I], padded with zeros."""
    return F.pad(matrix_OI, (0, 0, 0, -len(matrix_OI) % LANES)).unflatten(0, (-1, LANES))
