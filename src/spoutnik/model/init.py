"""Fresh weights, and the one dial that sizes a model: `depth`.

Deviation from the V3 report (section 4.2: every parameter normal with std 0.006, at hidden size 7168): matrices get std
1 / sqrt(2.5 * fan_in), which is 0.0075 at V3's width and what small widths need to learn at all; projections into the residual stream
are divided by sqrt(2 * layers). Norms are one, biases zero.
"""

import math
from typing import Any

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.moe import Router
from spoutnik.model.transformer import CausalLM


def depth_config(family: str, depth: int, vocab_size: int, max_position_embeddings: int = 512) -> ModelConfig:
    """The model of a given depth: widths, heads and experts follow from it. `family` is `deepseek_v3` or `llama`."""
    hidden_size, heads = 32 * depth, max(2, depth)
    common: dict[str, Any] = {
        "vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": depth, "num_attention_heads": heads,
        "num_key_value_heads": heads, "max_position_embeddings": max_position_embeddings, "tie_word_embeddings": False,
    }  # fmt: skip
    if family == "llama":
        return ModelConfig(model_type="llama", intermediate_size=hidden_size * 3, **common)
    return ModelConfig(
        model_type="deepseek_v3", intermediate_size=hidden_size * 3, q_lora_rank=hidden_size // 2, kv_lora_rank=hidden_size // 2,
        qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=32, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
        moe_intermediate_size=hidden_size // 2, first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=1.0,
        num_nextn_predict_layers=1, **common,
    )  # fmt: skip


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
