"""The one dial that sizes a model: `depth`."""

from typing import Any

from spoutnik.model.config import ModelConfig


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
