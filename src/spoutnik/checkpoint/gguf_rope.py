"""Context extensions in the words of a GGUF file, in both directions.

YaRN has two factors beside its frequencies: a on cos and sin, s on the attention's scores. Files name neither. ggml computes, with
l = ln(factor), from `attn_factor` and `yarn_log_multiplier` (m; deepseek2 stores m / 10): a = attn_factor, times 1 + 0.1 l where m is
zero; s = (a (1 + 0.1 m l))^2 in deepseek2 and 1 elsewhere. Source: llama.cpp's context and deepseek2 graph.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spoutnik.checkpoint.gguf import GGUF, Fields
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import embedding_scale, frequencies, yarn_mscale

ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_SCALING: dict[str, Any] = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
KNOWN = {"llama": ("linear", "llama3", "yarn"), "qwen2": ("linear", "yarn"), "deepseek2": ("yarn",)}
"""The extensions that llama.cpp computes, by its architectures."""


def scaling_fields(config: ModelConfig, architecture: str) -> dict[str, Any]:
    """The `rope.scaling.*` fields of a configuration, without the architecture's name before them.

    Llama 3's extension has none: it is a tensor, see `factors`. Raises UserError for an extension that llama.cpp cannot compute.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return {}
    kind, factor = scaling["rope_type"], float(scaling.get("factor", 1))
    if kind not in KNOWN[architecture] or (kind == "yarn" and np.float32(factor) <= 1):  # a file keeps single precision
        raise UserError(f"The model extends its context by {kind!r} (factor {factor:g}), which a GGUF of {architecture} cannot say.")
    if kind == "llama3":
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    attention, length = embedding_scale(config), math.log(factor)
    fields: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(scaling["original_max_position_embeddings"]),
    }
    fields |= {f"rope.scaling.yarn_{name}": float(scaling[name]) for name in ("beta_fast", "beta_slow") if scaling.get(name)}
    multiplier = 0.0
    if architecture == "deepseek2":
        wanted = yarn_mscale(factor, scaling.get("mscale_all_dim") or 0.0) / attention
        multiplier = round((wanted - 1) / (0.1 * length), 6)
        fields["rope.scaling.yarn_log_multiplier"] = 0.1 * multiplier
    attention /= 1.0 if multiplier else yarn_mscale(factor, 1.0)
    return fields if math.isclose(attention, 1, rel_tol=1e-6) else {**fields, "rope.scaling.attn_factor": attention}


def factors(config: ModelConfig) -> NDArray[np.float32] | None:
    """Llama 3's extension: by how much each channel pair's frequency is divided. None for any other."""
    if config.rope_scaling is None or config.rope_scaling["rope_type"] != "llama3":
        return None
    return (frequencies(config.with_(rope_scaling=None)) / frequencies(config)).numpy()


def read_scaling(file: GGUF, field: Fields, config: ModelConfig) -> dict[str, Any] | None:
    """The `rope_scaling` of a file whose other fields are in `config` already.

    Raises UserError for an extension that is none of KNOWN, or factors that are not Llama 3's.
    """
    if ROPE_FACTORS in file.tensors:
        return _llama3(file.read(ROPE_FACTORS), config, file)
    kind, factor = field.get("rope.scaling.type", "linear"), field.number("rope.scaling.factor", 1.0)
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn" or not 1 < factor < math.inf:
        raise UserError(f"{file.path} extends its context by {kind!r} (factor {factor:g}), which Spoutnik does not read: use safetensors")
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    scaling["original_max_position_embeddings"] = field.integer("rope.scaling.original_context_length", config.max_position_embeddings)
    scaling |= {name: field.number(f"rope.scaling.yarn_{name}", usual) for name, usual in (("beta_fast", 32.0), ("beta_slow", 1.0))}
    plain = yarn_mscale(factor, 1.0)
    attention = field.number("rope.scaling.attn_factor", 1.0)
    if not config.is_latent:
        return scaling if attention == 1 else {**scaling, "attention_factor": attention * plain}
    multiplier = round(10 * field.number("rope.scaling.yarn_log_multiplier", 0.0), 6)
    if attention == 1 and multiplier:
        return {**scaling, "mscale": multiplier, "mscale_all_dim": multiplier}
    attention *= 1.0 if multiplier else plain
    all_dims = (attention * yarn_mscale(factor, multiplier) - 1) / (0.1 * math.log(factor))
    return {**scaling, "attention_factor": attention, "mscale_all_dim": round(all_dims, 6)}


def _llama3(factors_F: torch.Tensor, config: ModelConfig, file: GGUF) -> dict[str, Any]:
    """The largest factor and Llama's published constants must give all the others back; any other extension is refused."""
    candidate = {**LLAMA3_SCALING, "factor": float(factors_F.max())}
    if factors_F.shape == (config.head_dim // 2,) and candidate["factor"] >= 1:
        ours_F = frequencies(config) / frequencies(config.with_(rope_scaling=candidate))
        if torch.allclose(factors_F, ours_F, rtol=1e-4):
            return candidate
    raise UserError(f"{file.path} extends its context by factors that are not Llama 3's; use the model's safetensors instead")
