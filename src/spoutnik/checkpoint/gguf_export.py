"""A model as a GGUF file that llama.cpp runs: architectures llama (also SmolLM2 and Mistral), qwen2 and deepseek2 (V2, V3, R1).

Multi-token prediction layers stay behind: this architecture has no place for them. What llama.cpp computes otherwise than the model is
said in warnings. Keys: gguf-py's constants and llama.cpp's loaders.
"""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spoutnik.checkpoint.assemble import parameters_of
from spoutnik.checkpoint.gguf_config import SIGMOID, SOFTMAX
from spoutnik.checkpoint.gguf_dequant import QuantType
from spoutnik.checkpoint.gguf_layout import KEYS, VALUES, divide, permute, turned_heads
from spoutnik.checkpoint.gguf_quant import F16, F32, FORMATS, Q8_0, FileType
from spoutnik.checkpoint.gguf_rope import ROPE_FACTORS, factors, scaling_fields
from spoutnik.checkpoint.gguf_write import Outgoing, write_gguf
from spoutnik.checkpoint.hf import check_tokenizer
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM
from spoutnik.text.gguf_fields import to_gguf_fields
from spoutnik.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FILE_TYPES: dict[FileType, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7}
"""The number by which `general.file_type` names what most of a file's weights are in."""
ALWAYS_FLOAT32 = ("ffn_gate_inp.weight", KEYS, VALUES)
"""The router chooses, so its rounding errors are jumps; on processors with AMX llama.cpp (b11434) aborts if the other two are smaller."""


def save_gguf(model: CausalLM, tokenizer: Tokenizer, path: str | Path, file_type: FileType = "f16", name: str | None = None) -> None:
    """Writes model and tokenizer into one file; one already there stays whole until the new one is on disk.

    Matrices are stored in `file_type`, except those in ALWAYS_FLOAT32, rows that are no multiple of 32 numbers (f16), and in the 4-bit
    types the matrix that makes the logits (q8_0); what is no matrix stays float32. `name` is what programs show, else the file's. Raises
    UserError for a tokenizer that is no byte-level BPE, a context extension that the format cannot say, weights beyond half precision's
    range, and a disk that is full or not writable.
    """
    check_tokenizer(tokenizer, model.config)
    architecture = "deepseek2" if model.config.is_latent else "qwen2" if model.config.model_type == "qwen2" else "llama"
    metadata = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name or Path(path).stem,
        "general.file_type": FILE_TYPES[file_type],
        "general.quantization_version": 2,
        **{f"{architecture}.{key}": value for key, value in _fields(model.config, architecture).items()},
        **to_gguf_fields(tokenizer, model.config.vocab_size),
    }
    for difference in differences(model.config):
        logger.warning("llama.cpp will not compute quite this model: %s.", difference)
    write_gguf(path, metadata, list(_outgoing(model, file_type)))


def differences(config: ModelConfig) -> list[str]:
    """What llama.cpp does otherwise, as far as a file cannot tell it to; empty for the models of our recipes."""
    width, rope = config.sliding_window, config.rope_scaling or {}
    betas = (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
    layers, latent = config.num_hidden_layers, config.is_latent
    grouped = config.topk_method == "group_limited_greedy" and config.topk_group < config.n_group
    found = [
        (width is not None and width < config.max_position_embeddings, f"it attends to all tokens, not to the last {width} only"),
        (betas != (32, 1), f"it takes YaRN's beta_fast and beta_slow for 32 and 1, not for {betas[0]:g} and {betas[1]:g}"),
        (latent and grouped, "it scores a group of experts by its best two, as V3 does, not by its best one"),
        (latent and config.rms_norm_eps != 1e-6, f"it norms latents with an epsilon of {config.rms_norm_eps:g}, not of 1e-06"),
        (latent and layers in (26, 27) and bool(config.q_lora_rank), f"it refuses {layers} layers whose queries have a low rank"),
        (config.n_routed_experts > 0 and not config.n_shared_experts, "it refuses experts without a shared one"),
        (config.model_type == "qwen2" and config.head_dim * config.num_attention_heads != config.hidden_size,
         f"it refuses {config.num_attention_heads} heads of {config.head_dim} in a width of {config.hidden_size}"),
    ]  # fmt: skip
    return [text for applies, text in found if applies]


def _fields(config: ModelConfig, architecture: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_theta),
        **scaling_fields(config, architecture),
    }
    if config.is_latent:
        return fields | _latent_fields(config)
    if config.sliding_window is not None:
        fields["attention.sliding_window"] = config.sliding_window
    return fields | {
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
    }


def _latent_fields(config: ModelConfig) -> dict[str, Any]:
    """ggml runs latent attention as one key-value head that is as wide as latent and rotary part together."""
    experts = config.n_routed_experts if config.first_k_dense_replace < config.num_hidden_layers else 0
    fields: dict[str, Any] = {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": config.q_lora_rank or 0,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "rope.dimension_count": config.qk_rope_head_dim,
        "leading_dense_block_count": config.first_k_dense_replace if experts else config.num_hidden_layers,
        "expert_feed_forward_length": config.moe_intermediate_size if experts else config.intermediate_size,
        "expert_shared_count": config.n_shared_experts if experts else 0,
        "expert_gating_func": SIGMOID if config.model_type == "deepseek_v3" else SOFTMAX,
        "expert_weights_norm": config.norm_topk_prob,
    }
    if experts:
        fields |= {
            "expert_count": experts,
            "expert_used_count": config.num_experts_per_tok,
            "expert_weights_scale": float(config.routed_scaling_factor),
        }
    if experts and config.topk_method != "greedy" and config.topk_group < config.n_group:
        fields |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return fields


def _outgoing(model: CausalLM, file_type: FileType) -> Iterator[Outgoing]:
    """Every tensor of the file. Its values are made when they are written."""
    config = model.config
    for name, tensor in parameters_of(model).items():
        for theirs, part in divide(name, tensor, config):
            kind = _kind(theirs, tuple(part.shape), file_type, config.tie_word_embeddings)
            yield Outgoing(theirs, tuple(part.shape), kind, partial(_values, part, turned_heads(theirs, config)))
    stretched = factors(config)
    if stretched is not None:
        yield Outgoing(ROPE_FACTORS, stretched.shape, F32, lambda: stretched)


def _kind(name: str, shape: tuple[int, ...], file_type: FileType, tied: bool) -> QuantType:
    """What a tensor is stored in; see `save_gguf`."""
    if len(shape) == 1 or name.endswith(ALWAYS_FLOAT32):
        return F32
    makes_logits = name == ("token_embd.weight" if tied else "output.weight")
    kind = Q8_0 if makes_logits and file_type in ("q4_0", "q4_1") else FORMATS[file_type]
    return F16 if shape[-1] % kind.values else kind


def _values(tensor: Tensor, heads: int) -> NDArray[np.float32]:
    """The tensor in float32, its rows in the file's order."""
    rows = permute(tensor, heads) if heads else tensor
    return rows.detach().float().cpu().contiguous().numpy()
