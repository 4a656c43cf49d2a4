"""Hugging Face's `config.json` of families that Spoutnik plans for without running them, as a `Shape`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from spoutnik.errors import UserError
from spoutnik.model.config import ARCHITECTURES
from spoutnik.plan.shape import Shape

GATED = ("olmo2", "olmo3", "qwen3", "phi3", "smollm3", "granite", "apertus", "palm")
EXPERTS = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "llama4_text")
PLAIN = ("gpt2", "gpt_neox", "bloom", "opt")
OTHER_NAMES = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings", "ffn_dim": "intermediate_size", "num_local_experts": "n_routed_experts",
    "num_experts": "n_routed_experts", "seq_length": "max_position_embeddings",
}  # fmt: skip
WHOLE = tuple(field.name for field in fields(Shape) if field.type is int)
TIED = ("gpt2", "bloom", "opt", "palm")


def shape_from_hf(raw: Mapping[str, Any]) -> Shape:
    """The sizes in a configuration. Raises UserError for a family whose blocks are not known here, and for sizes that cannot be."""
    family = raw.get("model_type")
    if family not in GATED + EXPERTS + PLAIN:
        known = ", ".join(sorted((*ARCHITECTURES, *GATED, *EXPERTS, *PLAIN)))
        raise UserError(
            "The model's family is {family!r}; the planner knows {known}. Give its sizes as flags if it is built like one of them.",
            family=family,
            known=known,
        )
    named = {OTHER_NAMES.get(key, key): value for key, value in raw.items() if value is not None}
    for name in (*WHOLE, "shared_expert_intermediate_size"):
        if type(named.get(name, 0)) is not int or named.get(name, 0) < 0:
            raise UserError(
                "The configuration of this {family} model gives {name} as {found!r}; it must be a whole number.",
                family=family,
                name=name,
                found=named[name],
            )
    for name in ("interleave_moe_layer_step", "decoder_sparse_step"):
        if named.get(name, 1) != 1:
            raise UserError(
                "Only some layers of this {family} model have experts ({name} is {found!r}), which the planner does not count.",
                family=family,
                name=name,
                found=named[name],
            )
    size = named.get("hidden_size", 0)
    values: dict[str, Any] = {"tie_word_embeddings": family in TIED, "num_key_value_heads": named.get("num_attention_heads", 0)}
    if family in PLAIN:
        values |= {"intermediate_size": 4 * size, "mlp_matrices": 2, "linear_bias": True, "norm_parameters": 2}
        if family in ("gpt2", "opt"):
            values["learned_positions"] = named.get("max_position_embeddings", 0)
    if family in EXPERTS:
        values |= _experts(family, named)
    values |= {key: value for key, value in named.items() if key in Shape.__dataclass_fields__}
    if not named.get("use_sliding_window", True) or family not in ("mixtral",):
        values.pop("sliding_window", None)
    if family == "palm":
        values["norms_per_layer"] = 1  # attention and perceptron read the same norm
    values["query_key_norm"] = _query_key_norm(family, values)
    lacking = [name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size") if not values.get(name)]
    if lacking:
        raise UserError("The configuration of this {family} model lacks {lacking}; add them.", family=family, lacking=", ".join(lacking))
    values.setdefault("intermediate_size", values.get("moe_intermediate_size", 0))
    return Shape(**values)


def _experts(family: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Mixtral and Llama 4 call an expert's width intermediate_size; a shared expert may be wider than a routed one."""
    width = named.get("moe_intermediate_size") or named.get("intermediate_size", 0)
    shared = named.get("shared_expert_intermediate_size", 0) // width if width else 0
    return {"moe_intermediate_size": width, "n_shared_experts": 1 if family == "llama4_text" else shared}


def _query_key_norm(family: str, values: Mapping[str, Any]) -> int:
    heads, size = values.get("num_attention_heads", 0), values.get("hidden_size", 0)
    head_dim = values.get("head_dim") or (size // heads if heads else 0)
    if family in ("qwen3", "qwen3_moe"):
        return 2 * head_dim
    if family in ("olmo2", "olmo3", "olmoe"):
        return (heads + int(values.get("num_key_value_heads", 0))) * head_dim
    return 0
