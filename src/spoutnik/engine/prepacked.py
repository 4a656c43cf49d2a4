"""The modules' products from weights that lie in oneDNN's own order, which it would else make of them anew in every call."""

from collections.abc import Callable
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn

from spoutnik.engine.watch import Watch
from spoutnik.model.transformer import CausalLM

MOST_ROWS = 128
"""Rows of a product up to which packed weights are the faster ones; with 512 the plain ones are as fast or faster."""


def gains(model: CausalLM) -> bool:
    """Whether packing pays: in bfloat16 on a CPU. In float32 torch asks another library, which is faster for one row."""
    weight = model.lm_head.weight
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    operators = torch.ops.mkldnn  # not public, so a later torch may lack them
    known = all(hasattr(operators, name) for name in ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise"))
    return known and bool(operators._is_mkldnn_bf16_supported())


class PackedLinears:
    """While entered, a model's nn.Linear compute from packed copies of their weights, without gradient. Where that gains nothing, as ever.

    The copies take as much memory again as the weights that they are made of.
    """

    def __init__(self, model: CausalLM):
        self._model = model
        self._forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
        self._watch: Watch | None = None

    def follow(self) -> None:
        """Packs if that was not done yet, or if the weights changed since."""
        if self._watch is None or self._watch.changed():
            self.pack()

    def pack(self) -> None:
        """Packs the weights as they are."""
        self._forwards.clear()
        self._watch = None
        if gains(self._model):
            for part in (*self._model.model.layers[: self._model.config.num_hidden_layers], self._model.lm_head):
                self._forwards |= {module: _forward(module) for module in part.modules() if isinstance(module, nn.Linear)}
            self._watch = Watch(self._model)

    def __enter__(self) -> None:
        for module, forward in self._forwards.items():
            module.__dict__["forward"] = forward  # past nn.Module.__setattr__, which is slow

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for module in self._forwards:
            del module.__dict__["forward"]


def _forward(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), None)
    return partial(_multiply, packed, None if module.bias is None else module.bias.detach())


def _multiply(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product
