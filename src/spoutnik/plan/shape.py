"""A model by its sizes alone, for the families that Spoutnik plans for and does not run: GPT-3's, BLOOM's, PaLM's, Qwen3's, Mixtral's.

Its fields have the names and the meanings of `ModelConfig`, so that whoever counts, places or times a model need not ask which it has.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with multi-head, grouped-query or multi-query attention, dense or with routed experts."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 0
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    mlp_matrices: int = 3
    """3 where a gate multiplies (SwiGLU), 2 for the plain perceptron."""
    learned_positions: int = 0
    """Rows of the table of learned positions; 0 for rotary or ALiBi."""
    linear_bias: bool = False
    """A bias on every matrix of a layer, as in GPT-2 and its like."""
    norm_parameters: int = 1
    """Numbers a channel in one norm: 1 (RMS), 2 (with a bias), 0 (none)."""
    norms_per_layer: int = 2
    query_key_norm: int = 0
    """Parameters of the norms on queries and keys, a layer."""
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    first_k_dense_replace: int = 0

    num_nextn_predict_layers = 0
    q_lora_rank = None
    kv_lora_rank = qk_nope_head_dim = qk_rope_head_dim = v_head_dim = 0
    n_group = topk_group = 1
    is_latent = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 0):
                raise UserError("{name} is {value!r}; it must be a whole number, not negative.", name=field.name, value=value)
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
            if getattr(self, name) <= 0:
                raise UserError("{name} is {found}; it must be positive.", name=name, found=getattr(self, name))
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                "{num_attention_heads} query heads cannot share {num_key_value_heads} key-value heads evenly; choose a divisor "
                "for num_key_value_heads.",
                num_attention_heads=self.num_attention_heads,
                num_key_value_heads=self.num_key_value_heads,
            )
        if not self.head_dim:
            if self.hidden_size % self.num_attention_heads:
                raise UserError(
                    "hidden_size {hidden_size} is no multiple of {num_attention_heads} heads; give head_dim, or choose others.",
                    hidden_size=self.hidden_size,
                    num_attention_heads=self.num_attention_heads,
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.mlp_matrices not in (2, 3):
            raise UserError("mlp_matrices is {mlp_matrices}; it must be 3 (gated) or 2 (plain).", mlp_matrices=self.mlp_matrices)
        if self.n_routed_experts and not (0 < self.num_experts_per_tok <= self.n_routed_experts and self.moe_intermediate_size):
            raise UserError(
                "{n_routed_experts} routed experts need num_experts_per_tok (1 to {n_routed_experts}, found "
                "{num_experts_per_tok}) and moe_intermediate_size (found {moe_intermediate_size}).",
                n_routed_experts=self.n_routed_experts,
                num_experts_per_tok=self.num_experts_per_tok,
                moe_intermediate_size=self.moe_intermediate_size,
            )

    def layer_has_experts(self, layer: int) -> bool:
        """Whether decoder layer `layer` is a mixture of experts."""
        return self.n_routed_experts > 0 and layer >= self.first_k_dense_replace

    def with_(self, **changes: Any) -> "Shape":
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)


Model = ModelConfig | Shape
"""What the planner plans for."""
