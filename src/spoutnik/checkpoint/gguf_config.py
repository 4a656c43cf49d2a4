"""The configuration of the model in a GGUF file, from its head alone. Needs no torch.

Architectures: `llama` (also SmolLM2 and Mistral), `qwen2` and `deepseek2` (DeepSeek-V2, V3, R1; without multi-token prediction layers,
which such files do not have). Keys: gguf-py's constants and llama.cpp's loaders.
"""

from typing import Any

from spoutnik.checkpoint.gguf_head import Fields, Head
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig

ARCHITECTURES = ("llama", "qwen2", "deepseek2")
SOFTMAX, SIGMOID = 1, 2
"""Values of `expert_gating_func`: V2's router and V3's."""


def sizes_of(file: Head) -> ModelConfig:
    """The configuration that the metadata describe, without an extension of the context (see `gguf_rope.read_scaling`)."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UserError(
            "{path} holds a model of architecture {architecture!r}; from GGUF, Spoutnik runs {architectures}",
            path=file.path,
            architecture=architecture,
            architectures=", ".join(ARCHITECTURES),
        )
    field = Fields(file, architecture)
    if "token_embd.weight" not in file.announced:
        raise UserError(
            "{path} has no token_embd.weight, so it is no whole language model; a model split in parts must be merged first", path=file.path
        )
    heads = field.integer("attention.head_count")
    family = _latent_fields(field) if architecture == "deepseek2" else _dense_fields(file, field, architecture, heads)
    return ModelConfig(
        vocab_size=file.announced["token_embd.weight"].shape[0],
        hidden_size=field.integer("embedding_length"),
        intermediate_size=field.integer("feed_forward_length"),
        num_hidden_layers=field.integer("block_count"),
        num_attention_heads=heads,
        max_position_embeddings=field.integer("context_length"),
        rms_norm_eps=field.number("attention.layer_norm_rms_epsilon"),
        rope_theta=field.number("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in file.announced,
        bos_token_id=_token(file, "bos"),
        eos_token_id=_token(file, "eos"),
        pad_token_id=_token(file, "padding"),
        **family,
    )


def _token(file: Head, name: str) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return value if type(value) is int else None


def _dense_fields(file: Head, field: Fields, architecture: str, heads: int) -> dict[str, Any]:
    """A sliding window makes a Mistral of what the file calls a llama."""
    window = field.integer("attention.sliding_window", 0) or None
    return {
        "model_type": "mistral" if architecture == "llama" and window else architecture,
        "num_key_value_heads": field.integer("attention.head_count_kv", heads),
        "head_dim": field.integer("attention.key_length", 0),
        "attention_bias": architecture == "qwen2" or "blk.0.attn_q.bias" in file.announced,
        "mlp_bias": architecture == "llama" and "blk.0.ffn_up.bias" in file.announced,
        "sliding_window": window,
    }


def _latent_fields(field: Fields) -> dict[str, Any]:
    """Current files give the heads' widths as `*_mla`; in old ones, which hold `attn_kv_b`, the plain lengths are those."""
    rope, experts = field.integer("rope.dimension_count"), field.integer("expert_count", 0)
    key = field.integer("attention.key_length_mla", field.get("attention.key_length"))
    groups, shared = field.integer("expert_group_count", 0), field.integer("expert_shared_count", 0)
    values: dict[str, Any] = {
        "model_type": "deepseek_v3" if field.integer("expert_gating_func", SOFTMAX) == SIGMOID else "deepseek_v2",
        "num_key_value_heads": field.integer("attention.head_count"),
        "q_lora_rank": field.integer("attention.q_lora_rank", 0) or None,
        "kv_lora_rank": field.integer("attention.kv_lora_rank"),
        "qk_nope_head_dim": max(key - rope, 0),
        "qk_rope_head_dim": rope,
        "v_head_dim": field.integer("attention.value_length_mla", field.get("attention.value_length")),
        "first_k_dense_replace": field.integer("leading_dense_block_count", 0),
        "norm_topk_prob": field.get("expert_weights_norm", False) is True,
    }
    if values["model_type"] == "deepseek_v2":
        values["topk_method"] = "group_limited_greedy" if groups > 1 else "greedy"
    if not experts:
        return values
    return values | {
        "n_routed_experts": experts,
        "n_shared_experts": shared,
        "num_experts_per_tok": field.integer("expert_used_count"),
        "moe_intermediate_size": field.integer("expert_feed_forward_length"),
        "n_group": max(groups, 1),
        "topk_group": field.integer("expert_group_used_count", 1) if groups > 1 else 1,
        "routed_scaling_factor": field.number("expert_weights_scale", 1.0),
    }
