"""Which tensor of the files is which part of which parameter: one table, read in both directions.

Files hold one tensor per expert and matrix, as published (DeepSeek-V3, README_WEIGHTS); in memory the experts of a layer are two fused
parameters. A multi-token prediction layer repeats the embedding and the head in the files; in memory it shares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spoutnik.model.config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ROUTER_BIAS = "e_score_correction_bias"
"""Stays float32 whatever the model's dtype: a smaller type could not hold its steps of 0.001."""

IGNORED = "rotary_emb.inv_freq"
"""Old checkpoints carry these; they are computed from the configuration."""


@dataclass(frozen=True)
class Piece:
    """A region of a parameter: `parameter[slot]`, of the given shape."""

    parameter: str
    shape: tuple[int, ...]
    slot: tuple[int | slice, ...] = ()


def pieces(parameters: Mapping[str, Sequence[int]]) -> dict[str, Piece]:
    """For each name in the files, the region it fills, given the shapes of the model's parameters by name."""
    table: dict[str, Piece] = {}
    for name, size in parameters.items():
        prefix, _, last = name.rpartition(".")
        if not prefix.endswith(".mlp.experts"):
            table[name] = Piece(name, tuple(size))
            continue
        experts, rows, columns = size
        for expert in range(experts):
            if last == "down_proj":
                table[f"{prefix}.{expert}.down_proj.weight"] = Piece(name, (rows, columns), (expert,))
                continue
            half = rows // 2
            table[f"{prefix}.{expert}.gate_proj.weight"] = Piece(name, (half, columns), (expert, slice(half)))
            table[f"{prefix}.{expert}.up_proj.weight"] = Piece(name, (half, columns), (expert, slice(half, rows)))
    return table


def copies(config: ModelConfig) -> dict[str, str]:
    """Names under which the files may repeat a parameter, and that parameter; the head is the embedding if they are tied."""
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    repeated = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}
    main = config.num_hidden_layers
    for layer in range(main, main + config.num_nextn_predict_layers):
        repeated |= {f"model.layers.{layer}.embed_tokens.weight": EMBEDDING, f"model.layers.{layer}.shared_head.head.weight": head}
    return repeated
