"""A GGUF file as a model: its metadata become a `ModelConfig`, its tensors our parameters.

Architectures: `llama` (also SmolLM2 and Mistral), `qwen2` and `deepseek2` (DeepSeek-V2, V3, R1; without multi-token prediction layers,
which such files do not have). Keys: gguf-py's constants and llama.cpp's loaders.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spoutnik.checkpoint.gguf import GGUF, Fields
from spoutnik.checkpoint.gguf_layout import our_name, turned_heads, unite, unpermute
from spoutnik.checkpoint.gguf_rope import ROPE_FACTORS, read_scaling
from spoutnik.checkpoint.layout import ROUTER_BIAS
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig

ARCHITECTURES = ("llama", "qwen2", "deepseek2")
SOFTMAX, SIGMOID = 1, 2
"""Values of `expert_gating_func`: V2's router and V3's."""


def load_gguf(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration in a GGUF file and its parameters in `dtype`, under our names and in Hugging Face's layout."""
    return read_gguf(GGUF(path), dtype)


def read_gguf(file: GGUF, dtype: torch.dtype) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As `load_gguf`, for a file that is open. Raises UserError for an architecture, tensor or context extension that is not known."""
    config = config_of(file)
    parts: dict[str, dict[str, Tensor]] = {}
    for name in file.tensors:
        if name == ROPE_FACTORS:
            continue
        ours = our_name(name)
        if ours is None:
            raise UserError(f"{file.path} holds the tensor {name}, which no {config.model_type} model has; Spoutnik cannot run this model")
        tensor = file.read(name, torch.float32 if ours.endswith(ROUTER_BIAS) else dtype)
        heads = turned_heads(name, config)
        parts.setdefault(ours, {})[name] = unpermute(tensor, heads) if heads else tensor
    return config, {ours: unite(ours, parts.pop(ours)) for ours in list(parts)}


def config_of(file: GGUF) -> ModelConfig:
    """The configuration that the metadata describe."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UserError(f"{file.path} holds a model of architecture {architecture!r}; from GGUF, Spoutnik runs {', '.join(ARCHITECTURES)}")
    field = Fields(file, architecture)
    if "token_embd.weight" not in file.tensors:
        raise UserError(
            f"{file.path} has no token_embd.weight, so it is no whole language model; a model split in parts must be merged first"
        )
    heads = field.integer("attention.head_count")
    family = _latent_fields(field) if architecture == "deepseek2" else _dense_fields(file, field, architecture, heads)
    config = ModelConfig(
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=field.integer("embedding_length"),
        intermediate_size=field.integer("feed_forward_length"),
        num_hidden_layers=field.integer("block_count"),
        num_attention_heads=heads,
        max_position_embeddings=field.integer("context_length"),
        rms_norm_eps=field.number("attention.layer_norm_rms_epsilon"),
        rope_theta=field.number("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=_token(file, "bos"),
        eos_token_id=_token(file, "eos"),
        pad_token_id=_token(file, "padding"),
        **family,
    )
    return config.with_(rope_scaling=read_scaling(file, field, config))


def _token(file: GGUF, name: str) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return value if type(value) is int else None


def _dense_fields(file: GGUF, field: Fields, architecture: str, heads: int) -> dict[str, Any]:
    """A sliding window makes a Mistral of what the file calls a llama."""
    window = field.integer("attention.sliding_window", 0) or None
    return {
        "model_type": "mistral" if architecture == "llama" and window else architecture,
        "num_key_value_heads": field.integer("attention.head_count_kv", heads),
        "head_dim": field.integer("attention.key_length", 0),
        "attention_bias": architecture == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": architecture == "llama" and "blk.0.ffn_up.bias" in file.tensors,
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
