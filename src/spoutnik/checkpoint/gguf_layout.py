"""Which tensor of a GGUF file is which of our parameters: one table, read in both directions, and the places where the layouts differ.

Three do: the llama architecture has the rows of queries and keys in another order; the matrix that rebuilds keys and values from the
latent is two, the keys' half transposed; gate and up projection of the experts are apart. Names: gguf-py's constants.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig

GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj", "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj", "ffn_gate_inp": "mlp.gate", "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj", "ffn_down_shexp": "mlp.shared_experts.down_proj",
}  # fmt: skip
KEYS, VALUES, GATE, UP = "attn_k_b.weight", "attn_v_b.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight"
REBUILDING, GATE_UP = "self_attn.kv_b_proj.weight", "mlp.experts.gate_up_proj"
PARTS = {KEYS: REBUILDING, VALUES: REBUILDING, GATE: GATE_UP, UP: GATE_UP}
IRREGULAR = {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias", "ffn_down_exps.weight": "mlp.experts.down_proj"}

_GLOBAL = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in GLOBAL_NAMES.items() for kind in ("weight", "bias")}
_LAYER = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYER_NAMES.items() for kind in ("weight", "bias")} | PARTS | IRREGULAR
_THEIRS = {ours: theirs for theirs, ours in (_GLOBAL | _LAYER).items()}


def our_name(name: str) -> str | None:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; None for a tensor of no known role."""
    match name.split("."):
        case ["blk", layer, *rest] if layer.isdecimal() and (ours := _LAYER.get(".".join(rest))):
            return f"model.layers.{layer}.{ours}"
    return _GLOBAL.get(name)


def turned_heads(name: str, config: ModelConfig) -> int:
    """How many heads the rows of a file's tensor hold if they are queries or keys of the llama architecture, else 0."""
    if config.model_type not in ("llama", "mistral"):
        return 0
    return config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads if ".attn_k." in name else 0


def permute(rows: Tensor, heads: int) -> Tensor:
    """Query or key rows [heads * d, ...] as the llama architecture has them.

    ggml turns adjacent pairs there, Hugging Face's Llama turns halves: row j * d / 2 + i of a head becomes row 2 i + j.
    """
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def unpermute(rows: Tensor, heads: int) -> Tensor:
    """Undoes `permute`. Raises UserError for rows that are no pairs of so many heads."""
    if rows.shape[0] % (2 * heads):
        raise UserError(f"A query or key tensor has {rows.shape[0]} rows, which {heads} heads cannot share; the file contradicts itself")
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def divide(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the file that our parameter `name` becomes, as views; none for those of multi-token prediction layers.

    Letters: H heads, N key channels without position, V value channels, C latent channels, E experts, F expert width, D hidden size.
    """
    layer, inner = "", name
    match name.split("."):
        case ["model", "layers", number, *rest]:
            if int(number) >= config.num_hidden_layers:
                return
            layer, inner = f"blk.{number}.", ".".join(rest)
    if inner == REBUILDING:
        keys_HNC, values_HVC = tensor.unflatten(0, (config.num_attention_heads, -1)).split([config.qk_nope_head_dim, config.v_head_dim], 1)
        yield layer + KEYS, keys_HNC.mT
        yield layer + VALUES, values_HVC
    elif inner == GATE_UP:
        gate_EFD, up_EFD = tensor.chunk(2, dim=1)
        yield layer + GATE, gate_EFD
        yield layer + UP, up_EFD
    else:
        yield layer + _THEIRS[inner], tensor


def unite(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    """Our parameter `name` from the tensors of the file, by their names. Raises UserError if one is missing or they do not fit."""
    roles = {theirs.split(".", 2)[2] if theirs.startswith("blk.") else theirs: tensor for theirs, tensor in parts.items()}
    if len(roles) == 1 and not roles.keys() & PARTS.keys():
        return next(iter(roles.values()))
    if all(tensor.ndim == 3 for tensor in roles.values()):
        if roles.keys() == {KEYS, VALUES} and _stack(roles[KEYS].mT) == _stack(roles[VALUES]):
            return torch.cat((roles[KEYS].mT, roles[VALUES]), dim=1).flatten(0, 1)
        if roles.keys() == {GATE, UP} and roles[GATE].shape == roles[UP].shape:
            return torch.cat((roles[GATE], roles[UP]), dim=1)
    found = ", ".join(f"{theirs} {tuple(tensor.shape)}" for theirs, tensor in parts.items())
    raise UserError(f"The file makes {name} of {found}, which do not fit together; convert the model again")


def _stack(matrices: Tensor) -> tuple[int, int]:
    """How many matrices, of how many columns: what must agree to join two stacks by their rows."""
    return matrices.shape[0], matrices.shape[2]
