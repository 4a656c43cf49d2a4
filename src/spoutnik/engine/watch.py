"""Whether a model's weights changed since they were copied into another order."""

import torch
from torch import Tensor

from spoutnik.model.transformer import CausalLM

SAMPLED = 64
"""Values of each tensor that are compared to see whether the weights changed."""


class Watch:
    """What tells changed weights from those there were when it was made: version counters, and some values of every tensor.

    The counters alone do not do: torch's fused optimisers leave them as they are.
    """

    def __init__(self, model: CausalLM):
        self._model = model
        self._versions, self._values = self._look()

    def changed(self) -> bool:
        """Whether any tensor has another place, version, or sampled value."""
        versions, values = self._look()
        return versions != self._versions or not torch.equal(values, self._values)

    def _look(self) -> tuple[list[tuple[int, int]], Tensor]:
        tensors = [*self._model.parameters(), *self._model.buffers()]
        versions = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        values = [tensor.detach().reshape(-1)[:: max(1, tensor.numel() // SAMPLED)].float() for tensor in tensors]
        return versions, torch.cat(values)
