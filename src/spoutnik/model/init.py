"""Fresh weights.

Deviation from the V3 report (section 4.2: every parameter normal with std 0.006, at hidden size 7168): matrices get std
1 / sqrt(2.5 * fan_in), which is 0.0075 at V3's width and what small widths need to learn at all; projections into the residual stream
are divided by sqrt(2 * layers). Norms are one, biases zero.
"""

import math

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.moe import Router
from spoutnik.model.transformer import CausalLM


def learning_rate_of(config: ModelConfig) -> float:
    """Peak AdamW learning rate for a fresh model: 3e-3 at width 192, falling with the width (arXiv 2203.03466 for the rule)."""
    return 3e-3 * 192 / config.hidden_size


def initialise(model: CausalLM, seed: int) -> None:
    """Fills every parameter in place, each from a stream of its own, so that a weight does not depend on which others exist."""
    layers = model.config.num_hidden_layers
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed + _stable_hash(name))
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif parameter.ndim == 1:
                parameter.zero_()
            else:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj"))
                fan_in = model.config.hidden_size if "embed_tokens" in name else parameter.shape[-1]
                std = 1 / math.sqrt(2.5 * fan_in) / (math.sqrt(2 * layers) if into_residual else 1)
                parameter.copy_(torch.empty(parameter.shape, dtype=torch.float32).normal_(0, std, generator=generator))
    for module in model.modules():
        if isinstance(module, Router) and module.topk_method == "noaux_tc":
            module.e_score_correction_bias.zero_()


def _stable_hash(name: str) -> int:
    """A number from a name that is the same in every process."""
    value = 0
    for character in name.encode():
        value = (value * 131 + character) % 2**31
    return value
