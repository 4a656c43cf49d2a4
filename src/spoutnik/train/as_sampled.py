"""What is kept of the sampling while a step's updates move the policy (DeepSeek-V3.2, arXiv 2512.02556, section 3.1).

Keep Routing: a token goes to the experts that it went to when it was sampled, though the router would choose others by now; the weights
of the experts are the router's own. Keep Sampling Mask: where top_p or top_k cut the vocabulary, both policies of the ratio, and the
reference, are distributions over the tokens that the sampler could draw.

Deviation: the sampler reports neither; the modules find both by reading the answers once more before the first update. In float32 on one
machine these are the sampler's up to rounding; the token that was drawn always counts as allowed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.sampler import allowed
from spoutnik.model.moe import MoE, Routing
from spoutnik.model.transformer import CausalLM

ROWS = 256
"""Rows whose tokens are sorted at a time."""


@dataclass(frozen=True)
class Kept:
    """Of the tokens of a micro-batch, as they were sampled; None for what is not kept."""

    routing: Routing | None
    support: "Support | None"


@dataclass(frozen=True)
class Support:
    """The tokens that could be drawn at each of N places."""

    tokens: Tensor
    """[N, most] int32, -1 behind a row's last."""
    log_mass: Tensor
    """[N]: the logarithm of what the sampler's policy gave them together."""


def support_of(scaled_NV: Tensor, drawn_N: Tensor, top_p: float, top_k: int) -> Support:
    """The support of a sampler that cuts the softmax of these logits, which are divided by the temperature already."""
    parts = [_rows(rows, drawn, top_p, top_k) for rows, drawn in zip(scaled_NV.split(ROWS), drawn_N.split(ROWS), strict=True)]
    most = max(part.shape[1] for part in parts)
    tokens_NM = torch.cat([torch.nn.functional.pad(part, (0, most - part.shape[1]), value=-1) for part in parts])
    return Support(tokens_NM, log_mass(scaled_NV, tokens_NM))


def log_mass(scaled_NV: Tensor, tokens_NM: Tensor) -> Tensor:
    """[N]: log of the probability that these logits give to a support's tokens. Subtracting it renormalises a log-probability."""
    inside_NM = scaled_NV.gather(-1, tokens_NM.clamp(min=0).long()).masked_fill(tokens_NM < 0, -torch.inf)
    return inside_NM.logsumexp(-1) - scaled_NV.logsumexp(-1)


def rerouted(model: CausalLM, routing: Routing, places_T: Tensor) -> float:
    """Share of the expert choices at these places [T] bool, over all layers, that the routers would make differently by themselves."""
    different, made = 0, 0
    for layer, scores_TE, kept_TK in zip(routing.layers, routing.scores_TE, routing.experts_TK, strict=True):
        moe = model.model.layers[layer].mlp
        assert isinstance(moe, MoE)
        own_TK, kept_TK = moe.gate.choose(scores_TE[places_T]), kept_TK[places_T]
        different += int((own_TK[:, :, None] != kept_TK[:, None, :]).all(-1).sum())
        made += own_TK.numel()
    return different / max(made, 1)


def _rows(scaled_NV: Tensor, drawn_N: Tensor, top_p: float, top_k: int) -> Tensor:
    """[N, most] int32: the allowed tokens of each row, the drawn one among them."""
    mass_NV = (scaled_NV - scaled_NV.amax(-1, keepdim=True)).exp()
    total_N1 = mass_NV.sum(-1, keepdim=True, dtype=torch.float64)
    top_k_N1 = torch.full((len(mass_NV), 1), top_k or 2**62, device=mass_NV.device)
    token_NM, _, inside_NM = allowed(mass_NV, total_N1, top_k_N1, torch.full_like(total_N1, top_p))
    tokens_NM = token_NM.masked_fill(~inside_NM, -1)[:, : int(inside_NM.sum(-1).max())]
    missing_N1 = (tokens_NM != drawn_N[:, None]).all(-1, keepdim=True)
    return torch.cat([tokens_NM, torch.where(missing_N1, drawn_N[:, None], -1)], -1).to(torch.int32)
