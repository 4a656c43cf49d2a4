"""A GGUF file as a model: its metadata become a `ModelConfig`, its tensors our parameters.

Architectures: `llama` (also SmolLM2 and Mistral) and `qwen2`. Names and layouts: gguf-py's constants and tensor mapping.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spoutnik.checkpoint.gguf import GGUF
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import frequencies

ARCHITECTURES = ("llama", "qwen2")
GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_SCALING: dict[str, Any] = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def load_gguf(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration in a GGUF file and its parameters in `dtype`, under our names and in Hugging Face's layout."""
    return read_gguf(GGUF(path), dtype)


def read_gguf(file: GGUF, dtype: torch.dtype) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As `load_gguf`, for a file that is open. Raises UserError for an architecture, tensor or context extension that is not known."""
    config = _config(file)
    parameters: dict[str, Tensor] = {}
    for name in file.tensors:
        if name == ROPE_FACTORS:
            continue
        ours = our_name(name)
        if ours is None:
            raise UserError(f"{file.path} holds the tensor {name}, which no {config.model_type} model has; Spoutnik cannot run this model")
        tensor = torch.from_numpy(file.read(name)).to(dtype)
        if config.model_type == "llama" and ".attn_q." in name:
            tensor = unpermute(tensor, config.num_attention_heads)
        if config.model_type == "llama" and ".attn_k." in name:
            tensor = unpermute(tensor, config.num_key_value_heads)
        parameters[ours] = tensor
    return config, parameters


def our_name(name: str) -> str | None:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; None for a tensor of no known role."""
    stem, _, kind = name.rpartition(".")
    match stem.split("."):
        case [part] if part in GLOBAL_NAMES:
            return f"{GLOBAL_NAMES[part]}.{kind}"
        case ["blk", layer, part] if part in LAYER_NAMES and layer.isdecimal():
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
    return None


def unpermute(rows: Tensor, heads: int) -> Tensor:
    """Undoes the converter's reordering of query and key rows [heads * d, ...] in the llama architecture.

    ggml turns adjacent pairs there, Hugging Face's Llama turns halves: row 2 i + j of a head becomes row j * d / 2 + i.
    """
    if rows.shape[0] % (2 * heads):
        raise UserError(f"A query or key tensor has {rows.shape[0]} rows, which {heads} heads cannot share; the file contradicts itself")
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _config(file: GGUF) -> ModelConfig:
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UserError(f"{file.path} holds a model of architecture {architecture!r}; from GGUF, Spoutnik runs {', '.join(ARCHITECTURES)}")
    field = _Fields(file, architecture)
    if "token_embd.weight" not in file.tensors:
        raise UserError(
            f"{file.path} has no token_embd.weight, so it is no whole language model; a model split in parts must be merged first"
        )
    heads = field.integer("attention.head_count")
    has_bias = "blk.0.attn_q.bias" in file.tensors
    config = ModelConfig(
        model_type=architecture,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=field.integer("embedding_length"),
        intermediate_size=field.integer("feed_forward_length"),
        num_hidden_layers=field.integer("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field.integer("attention.head_count_kv", heads),
        head_dim=field.integer("attention.key_length", 0),
        max_position_embeddings=field.integer("context_length"),
        rms_norm_eps=field.number("attention.layer_norm_rms_epsilon"),
        rope_theta=field.number("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in file.tensors,
        attention_bias=architecture == "qwen2" or has_bias,
        bos_token_id=field.token("bos"),
        eos_token_id=field.token("eos"),
        pad_token_id=field.token("padding"),
    )
    return config.with_(rope_scaling=_rope_scaling(file, field, config))


class _Fields:
    """The metadata of one architecture, with their types checked."""

    def __init__(self, file: GGUF, architecture: str):
        self.file, self.architecture = file, architecture

    def get(self, name: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{name}", default)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if type(value) is not int:
            raise UserError(f"{self.file.path} gives {self.architecture}.{name} as {value!r}, expected a whole number; convert it again")
        return value

    def token(self, name: str) -> int | None:
        value = self.file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if type(value) is int else None

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float):
            raise UserError(f"{self.file.path} gives {self.architecture}.{name} as {value!r}, expected a number; convert it again")
        return float(value)


def _rope_scaling(file: GGUF, field: _Fields, config: ModelConfig) -> dict[str, Any] | None:
    """Llama 3.1's context extension, which GGUF stores as one factor per channel pair instead of its parameters.

    The largest factor and Llama's published constants must give all the others back; any other extension is refused.
    """
    scaling = field.get("rope.scaling.type", "none")
    if scaling not in ("none", None):
        raise UserError(
            f"{file.path} extends its context by {scaling!r}; from GGUF, Spoutnik reads Llama 3's factors only: use safetensors"
        )
    if ROPE_FACTORS not in file.tensors:
        return None
    factors_F = torch.from_numpy(file.read(ROPE_FACTORS))
    candidate = {**LLAMA3_SCALING, "factor": float(factors_F.max())}
    if factors_F.shape == (config.head_dim // 2,) and candidate["factor"] >= 1:
        ours_F = frequencies(config) / frequencies(config.with_(rope_scaling=candidate))
        if torch.allclose(factors_F, ours_F, rtol=1e-4):
            return candidate
    raise UserError(f"{file.path} extends its context by factors that are not Llama 3's; use the model's safetensors instead")
