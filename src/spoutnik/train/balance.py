"""Expert balance, without an auxiliary loss (DeepSeek-V3, section 2.1.2) or by one, and what to watch about it."""

from typing import cast

import torch
from torch import Tensor

from spoutnik.model.moe import MoE, Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.train.losses import batch_balance_loss, sequence_balance_loss


class ExpertLoad:
    """Tokens that each expert got in one step, by layer, summed over micro-batches."""

    def __init__(self) -> None:
        self.counts_E: dict[int, Tensor] = {}

    def add(self, routing: Routing) -> None:
        for layer, scores_TE, experts_TK in zip(routing.layers, routing.scores_TE, routing.experts_TK, strict=True):
            counts_E = torch.bincount(experts_TK.flatten(), minlength=scores_TE.shape[-1])
            self.counts_E[layer] = self.counts_E.get(layer, 0) + counts_E

    def update_bias(self, model: CausalLM, rate: float) -> None:
        """b += rate * sign(mean load - load): after the step, over the whole batch, outside the gradient."""
        for layer, counts_E in self.counts_E.items():
            moe = cast(MoE, model.model.layers[layer].mlp)
            load_E = counts_E.float()
            moe.gate.e_score_correction_bias += rate * torch.sign(load_E.mean() - load_E)

    def metrics(self) -> dict[str, object]:
        """max_violation: worst layer's (largest load - mean) / mean; dead_experts: how many got under a tenth of the mean; load: shares."""
        if not self.counts_E:
            return {}
        relative = {layer: counts_E.float() / counts_E.float().mean() for layer, counts_E in self.counts_E.items()}
        return {
            "max_violation": max(float(load_E.max()) - 1 for load_E in relative.values()),
            "dead_experts": sum(int((load_E < 0.1).sum()) for load_E in relative.values()),
            "load": [[round(float(share), 4) for share in load_E / len(load_E)] for load_E in relative.values()],
        }


def balance_losses(routing: Routing, rows: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Means over layers of (the sequence-wise loss, the loss over all tokens); the tokens are `rows` sequences one after another."""
    by_row = [sequence_balance_loss(scores_TE.unflatten(0, (rows, -1)), top_k) for scores_TE in routing.scores_TE]
    whole = [batch_balance_loss(scores_TE, experts_TK) for scores_TE, experts_TK in zip(routing.scores_TE, routing.experts_TK, strict=True)]
    return torch.stack(by_row).mean(), torch.stack(whole).mean()
