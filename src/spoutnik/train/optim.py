"""Optimisers by parameter: AdamW for all, or Muon for hidden matrices with AdamW for the rest."""

from collections.abc import Iterable

import torch
from torch import nn

from spoutnik.model.transformer import CausalLM

MUON_RMS = 0.2
BETAS = (0.9, 0.95)


class Optimizer:
    """One or two torch optimisers that step together. `scale` is the schedule's factor of the peak learning rate."""

    def __init__(self, model: CausalLM, learning_rate: float, weight_decay: float, muon: bool = False):
        hidden, matrices, vectors = _split(model.named_parameters(), muon)
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=1e-8, fused=True)]
        if hidden:
            self.parts.append(Muon(hidden, learning_rate, weight_decay))
        self.learning_rate = learning_rate

    def step(self, scale: float) -> None:
        """One update at `scale` times the peak learning rate; clears gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.learning_rate * scale
            part.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_of(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        """The tensors that belong to one parameter, live (moments, step); empty before the first step."""
        return next((part.state[parameter] for part in self.parts if parameter in part.state), {})

    def restore(self, parameter: nn.Parameter, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `state_of` gave, from whatever device."""
        part = next(part for part in self.parts if any(parameter is known for group in part.param_groups for known in group["params"]))
        part.state[parameter] = {kind: tensor.to(parameter.device) for kind, tensor in state.items()}  # fused: the step count, too


def _split(named: Iterable[tuple[str, nn.Parameter]], muon: bool) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(hidden matrices for Muon, other matrices, vectors). Embedding, head and router stay with AdamW."""
    hidden, matrices, vectors = [], [], []
    for name, parameter in named:
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif muon and not any(part in name for part in ("embed_tokens", "lm_head", "mlp.gate.weight")):
            hidden.append(parameter)
        else:
            matrices.append(parameter)
    return hidden, matrices, vectors


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz (Jordan 2024), scaled to AdamW's update size (Moonlight, arXiv 2502.16982).

    Stacked experts [E, out, in] count as E matrices. torch.optim.Muon takes two dimensions only.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loss is never evaluated again
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape[-2:], []).append(parameter)
            for alike in by_shape.values():
                self._step_together(alike, group)

    def _step_together(self, parameters: list[nn.Parameter], group: dict[str, float]) -> None:
        """Updates parameters whose matrices have one shape: small matrices are orthogonalised much faster as one batch."""
        wanted = []
        for parameter in parameters:
            assert parameter.grad is not None, "the caller passes parameters with gradients"
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            wanted.append(parameter.grad.lerp(momentum, group["momentum"]).reshape(-1, *parameter.shape[-2:]))
        updates = orthogonalise(torch.cat(wanted)).split([len(matrices) for matrices in wanted])
        for parameter, update in zip(parameters, updates, strict=True):
            rows, columns = parameter.shape[-2:]
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view_as(parameter), alpha=-group["lr"] * MUON_RMS * max(rows, columns) ** 0.5)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearly U V^T of the singular value decomposition of [..., M, N], by a quintic Newton-Schulz iteration in the input's dtype."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
