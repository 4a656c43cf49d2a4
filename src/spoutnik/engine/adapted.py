"""Adapters on the torch modules: what each row of a batch has added to the modules' outputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spoutnik.checkpoint.adapter import Adapter, LowRank
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM


class AdaptedModules:
    """Adapters by name, and hooks that add them. Outside of `rows` the modules are as they were."""

    def __init__(self, model: CausalLM):
        self._model = model
        self._changes: dict[str, dict[nn.Module, LowRank]] = {}
        self._rows: Mapping[str, Tensor | slice] = {}

    def add(self, name: str, adapter: Adapter) -> None:
        """Raises UserError for what the modules do not run as modules."""
        refused = next((module for module in adapter.modules if module.endswith(".kv_b_proj")), None)
        if refused is not None:
            raise UserError(f"The adapter changes {refused}, which the torch modules fold into others; only the C++ kernels can serve it.")
        modules = dict(self._model.named_modules())
        self._changes[name] = {modules[module]: change for module, change in adapter.modules.items()}

    def remove(self, name: str) -> None:
        """Forgets an adapter."""
        del self._changes[name]

    def rows(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Within, batch row b of the model has the adapter names[b], "" for none."""
        device = self._model.lm_head.weight.device
        used = {*names} - {""}
        return self._hooked({name: torch.tensor([row for row, own in enumerate(names) if own == name], device=device) for name in used})

    def all_rows(self, name: str) -> AbstractContextManager[None]:
        """Within, all rows of every batch have this adapter, "" for none."""
        return self._hooked({name: slice(None)} if name else {})

    @contextmanager
    def _hooked(self, rows: Mapping[str, Tensor | slice]) -> Iterator[None]:
        hooks: list[RemovableHandle] = []
        self._rows = rows
        try:
            for module in {module: None for name in self._rows for module in self._changes[name]}:
                hooks.append(module.register_forward_hook(self._add))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output_BTO: Tensor) -> None:
        """Adds in place, in float32 at least: the product that made the output is nobody else's."""
        for name, rows_b in self._rows.items():
            change = self._changes[name].get(module)
            if change is not None:
                x_bTI = inputs[0][rows_b]
                wide = torch.promote_types(x_bTI.dtype, torch.float32)
                down_RI, up_OR = change.down.to(x_bTI.device, wide), change.up.to(x_bTI.device, wide)
                delta_bTO = (x_bTI.to(wide) @ down_RI.T) @ up_OR.T * change.scale
                output_BTO[rows_b] += delta_bTO.to(output_BTO.dtype)
