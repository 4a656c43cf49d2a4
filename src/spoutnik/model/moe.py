"""DeepSeekMoE: the router, the experts it chooses from, and the shared expert that every token sees.

Source: DeepSeek-V3 report, section 2.1.2, equations 12 to 16; the softmax gate is DeepSeek-V2's.
Letters: T tokens, E routed experts, G groups, e experts of a group, K experts per token, D hidden size.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from spoutnik.model.config import ModelConfig
from spoutnik.model.experts import IMPLEMENTATIONS, choose
from spoutnik.model.layers import MLP


class Routing:
    """What the routers of one call decided, layer by layer: read by the balance losses and the bias update, never by the model.

    With `replay`, the routing of an earlier call on the same tokens, the routers choose as they did then; weights follow their scores now.
    """

    def __init__(self, replay: "Routing | None" = None) -> None:
        self.layers: list[int] = []
        self.scores_TE: list[Tensor] = []
        self.experts_TK: list[Tensor] = []
        self._replayed_TK = {} if replay is None else dict(zip(replay.layers, replay.experts_TK, strict=True))

    def add(self, layer: int, scores_TE: Tensor, experts_TK: Tensor) -> None:
        """Notes one layer's affinities (with gradient, unbiased) and choices."""
        self.layers.append(layer)
        self.scores_TE.append(scores_TE)
        self.experts_TK.append(experts_TK)

    def told(self, layer: int) -> Tensor | None:
        """The experts [T, K] that a layer's router has to choose, if any."""
        return self._replayed_TK.get(layer)


class Router(nn.Module):
    """Affinity of each token to each expert, and the few that it goes to.

    V3: sigmoid scores; a bias, corrected outside the gradient, chooses experts but never weighs them; chosen weights are normalised.
    V2: softmax scores, no bias, not normalised. Scores are float32 (or wider) whatever the input.
    """

    e_score_correction_bias: Tensor
    """[E] float32, V3 only; a buffer: it is checkpointed, but neither gradient nor optimiser ever touches it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_group, self.topk_group, self.top_k = config.n_group, config.topk_group, config.num_experts_per_tok
        self.norm_topk_prob, self.routed_scaling_factor = config.norm_topk_prob, config.routed_scaling_factor
        self.topk_method = config.topk_method
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        if self.topk_method == "noaux_tc":
            self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts, dtype=torch.float32))

    def forward(self, hidden_TD: Tensor, told_TK: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (scores_TE, experts_TK int64, weights_TK), scores and weights in float32 at least. `told_TK` chooses in its place."""
        wide = torch.promote_types(hidden_TD.dtype, torch.float32)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            logits_TE = hidden_TD.to(wide) @ self.weight.to(wide).T
        scores_TE = logits_TE.sigmoid() if self.topk_method == "noaux_tc" else logits_TE.softmax(-1)
        experts_TK = self.choose(scores_TE) if told_TK is None else told_TK
        weights_TK = scores_TE.gather(-1, experts_TK)
        if self.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
        return scores_TE, experts_TK, weights_TK * self.routed_scaling_factor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and casts as every module does, except that the bias stays float32: bfloat16 cannot hold steps of 0.001 near 1."""
        bias = self._buffers.get("e_score_correction_bias")
        super()._apply(fn, recurse)
        if bias is not None and self.e_score_correction_bias.dtype != bias.dtype:
            self.e_score_correction_bias = bias.to(self.e_score_correction_bias.device)
        return self

    def choose(self, scores_TE: Tensor) -> Tensor:
        """The experts [T, K] that tokens with these affinities go to."""
        chosen_TE = scores_TE.detach()
        return self._select(chosen_TE + self.e_score_correction_bias if self.topk_method == "noaux_tc" else chosen_TE)

    def _select(self, scores_TE: Tensor) -> Tensor:
        """Top-k experts within the best `topk_group` groups. A group scores the sum of its two best (V3) or its best (V2)."""
        if self.topk_group < self.n_group and self.topk_method != "greedy":
            scores_TGe = scores_TE.unflatten(-1, (self.n_group, -1))
            best = 2 if self.topk_method == "noaux_tc" else 1
            groups_Tg = scores_TGe.topk(best, dim=-1).values.sum(-1).topk(self.topk_group, dim=-1).indices
            closed_TG = torch.ones(scores_TGe.shape[:2], dtype=torch.bool, device=scores_TE.device).scatter(-1, groups_Tg, False)
            scores_TE = scores_TGe.masked_fill(closed_TG[..., None], -torch.inf).flatten(1)
        return scores_TE.topk(self.top_k, dim=-1).indices


class Experts(nn.Module):
    """All routed experts of a layer in two tensors, gate and up fused, as transformers 5 holds them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        experts, hidden_size, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden_size, width))
        self.implementation: str | None = None
        """One of IMPLEMENTATIONS, or None to choose by the inputs."""

    def forward(self, hidden_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        name = self.implementation or choose(hidden_TD, experts_TK, self.gate_up_proj, self.down_proj)
        return IMPLEMENTATIONS[name](hidden_TD, experts_TK, weights_TK, self.gate_up_proj, self.down_proj)


class MoE(nn.Module):
    """Routed experts weighed by the router, plus shared experts outside the gating and its scaling."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.gate = Router(config)
        self.experts = Experts(config)
        if config.n_shared_experts:
            self.shared_experts = MLP(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, x_BTD: Tensor, routing: Routing | None) -> Tensor:
        hidden_TD = x_BTD.flatten(0, -2)
        scores_TE, experts_TK, weights_TK = self.gate(hidden_TD, None if routing is None else routing.told(self.layer))
        if routing is not None:
            routing.add(self.layer, scores_TE, experts_TK)
        routed_BTD = self.experts(hidden_TD, experts_TK, weights_TK).view_as(x_BTD)
        return routed_BTD + self.shared_experts(x_BTD) if hasattr(self, "shared_experts") else routed_BTD
