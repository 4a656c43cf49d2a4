"""What a model is made of and what each part costs: parameters, and operations a token, forward and backward, causal and full.

Counted as in `spoutnik.model.flops` (a multiply-add is 2; matrix products alone; latent attention in its naive form), whose sums these
parts give for the families that it knows. Backward is twice forward. "Full" counts every key of the sequence for every query, as papers
that report a non-causal utilisation do.
"""

from dataclasses import dataclass

from spoutnik.model.config import ModelConfig
from spoutnik.plan.shape import Model


@dataclass(frozen=True)
class Component:
    """One part over all layers. Operations are those of one token forward; `mtp` marks what only multi-token prediction needs."""

    name: str
    parameters: int
    active_parameters: int
    forward: float
    """With a causal mask: of a whole sequence, the mean token."""
    forward_full: float
    mtp: bool = False


@dataclass(frozen=True)
class Counts:
    """A model's parts at one sequence length."""

    sequence_length: int
    components: tuple[Component, ...]

    @property
    def parameters(self) -> int:
        """All parameters of the main model, without multi-token prediction layers, as published sizes have it."""
        return sum(part.parameters for part in self.components if not part.mtp)

    @property
    def active_parameters(self) -> int:
        """Those that one token uses; the embedding table counts whole."""
        return sum(part.active_parameters for part in self.components if not part.mtp)

    @property
    def mtp_parameters(self) -> int:
        """What multi-token prediction layers add."""
        return sum(part.parameters for part in self.components if part.mtp)

    @property
    def multiplied_parameters(self) -> float:
        """Parameters that one token is multiplied by: active ones without embeddings, norms and biases, with the head."""
        return self._sum(causal=True, mtp=False, without_core=True) / 2

    def forward(self, causal: bool = True, mtp: bool = False) -> float:
        """Operations of one token forward, mean over the sequence."""
        return self._sum(causal, mtp)

    def backward(self, causal: bool = True, mtp: bool = False) -> float:
        """Operations of one token backward."""
        return 2 * self._sum(causal, mtp)

    def training(self, causal: bool = True, mtp: bool = False) -> float:
        """Operations of one token forward and backward."""
        return 3 * self._sum(causal, mtp)

    def part(self, name: str) -> Component:
        """The component of that name; one without anything where the model lacks it."""
        return next((part for part in self.components if part.name == name), Component(name, 0, 0, 0.0, 0.0))

    def _sum(self, causal: bool, mtp: bool, without_core: bool = False) -> float:
        parts = [part for part in self.components if (mtp or not part.mtp) and not (without_core and part.name == "attention core")]
        return sum(part.forward if causal else part.forward_full for part in parts)


def counts(model: Model, sequence_length: int | None = None) -> Counts:
    """The parts of a model, trained or read over whole sequences of this length (default: 4,096, or what the model has at most)."""
    length = sequence_length or min(4096, model.max_position_embeddings)
    causal, full = mean_causal_keys(length, model.sliding_window), min(length, model.sliding_window or length)
    layers = range(model.num_hidden_layers)
    with_experts = sum(model.layer_has_experts(layer) for layer in layers)
    dense = len(layers) - with_experts
    size, vocabulary = model.hidden_size, model.vocab_size
    expert, gated = matrices_per_expert(model), _mlp_matrices(model)
    found = [
        _held("embedding", (vocabulary + getattr(model, "learned_positions", 0)) * size),
        _multiplied("attention projections", len(layers) * attention_matrices(model)),
        Component("attention core", 0, 0, len(layers) * core_flops(model, causal), len(layers) * core_flops(model, full)),
        _multiplied("router", with_experts * size * model.n_routed_experts),
        _multiplied("shared experts", with_experts * model.n_shared_experts * expert),
        _multiplied("routed experts", with_experts * model.n_routed_experts * expert, with_experts * model.num_experts_per_tok * expert),
        _multiplied("dense MLP", dense * gated * size * model.intermediate_size),
        _head(model),
        _held("norms and biases", sum(_small(model, layer) for layer in layers) + _norm(model) * size),
    ]
    if model.num_nextn_predict_layers:
        found.append(_mtp(model, causal, full))
    return Counts(length, tuple(part for part in found if part.parameters or part.forward))


def forward_at(model: Model, keys: float) -> float:
    """Operations of one token forward through the main model that looks at `keys` keys: of decoding at position keys - 1."""
    parts = counts(model, 1)
    return parts.forward() + model.num_hidden_layers * (core_flops(model, keys) - core_flops(model, 1.0))


def mean_causal_keys(length: float, window: int | None = None) -> float:
    """Keys that a token of a causal sequence sees, averaged over the sequence."""
    if window is None or length <= window:
        return (length + 1) / 2
    return (window * (window + 1) / 2 + (length - window) * window) / length


def cache_values(model: Model) -> int:
    """Numbers that the cache keeps of one token: keys and values of each layer, or latent and rotary key."""
    if model.is_latent:
        return model.num_hidden_layers * (model.kv_lora_rank + model.qk_rope_head_dim)
    return model.num_hidden_layers * 2 * model.num_key_value_heads * model.head_dim


def core_flops(model: Model, keys: float) -> float:
    """Scores and weighted values of one token in one layer."""
    keys = min(keys, model.sliding_window or keys)
    query, value = head_widths(model)
    return 2 * keys * model.num_attention_heads * (query + value)


def head_widths(model: Model) -> tuple[int, int]:
    """Channels of one query (and key) and of one value."""
    if model.is_latent:
        return model.qk_nope_head_dim + model.qk_rope_head_dim, model.v_head_dim
    return model.head_dim, model.head_dim


def attention_matrices(model: Model) -> int:
    """Parameters of the matrices around one layer's attention."""
    size, heads = model.hidden_size, model.num_attention_heads
    query, value = head_widths(model)
    if not model.is_latent:
        return 2 * size * (heads + model.num_key_value_heads) * model.head_dim
    rank = model.q_lora_rank
    queries = rank * (size + heads * query) if rank else size * heads * query
    latent = size * (model.kv_lora_rank + model.qk_rope_head_dim) + model.kv_lora_rank * heads * (model.qk_nope_head_dim + value)
    return queries + latent + heads * value * size


def matrices_per_expert(model: Model) -> int:
    """Parameters of one routed expert."""
    return _mlp_matrices(model) * model.hidden_size * model.moe_intermediate_size


def _mlp_matrices(model: Model) -> int:
    return 3 if isinstance(model, ModelConfig) else model.mlp_matrices


def _held(name: str, parameters: int) -> Component:
    return Component(name, parameters, parameters, 0.0, 0.0)


def _multiplied(name: str, parameters: int, active: int | None = None, mtp: bool = False) -> Component:
    active = parameters if active is None else active
    return Component(name, parameters, active, 2.0 * active, 2.0 * active, mtp)


def _head(model: Model) -> Component:
    """Tied to the embedding it costs operations and no parameters."""
    matrix = model.vocab_size * model.hidden_size
    held = 0 if model.tie_word_embeddings else matrix
    return Component("head", held, held, 2.0 * matrix, 2.0 * matrix)


def _norm(model: Model) -> int:
    return 1 if isinstance(model, ModelConfig) else model.norm_parameters


def _small(model: Model, layer: int) -> int:
    """Norms and biases of one layer."""
    size, heads, key_heads = model.hidden_size, model.num_attention_heads, model.num_key_value_heads
    if not isinstance(model, ModelConfig):
        biases = (heads + 2 * key_heads) * model.head_dim + size + model.intermediate_size + size if model.linear_bias else 0
        return model.norms_per_layer * model.norm_parameters * size + model.query_key_norm + biases
    if model.is_latent:
        return 2 * size + model.kv_lora_rank + (model.q_lora_rank or 0)
    attention = (heads + 2 * key_heads) * model.head_dim + (size if model.model_type == "llama" else 0) if model.attention_bias else 0
    return 2 * size + attention + (2 * model.intermediate_size + size if model.mlp_bias else 0)


def _mtp(model: Model, causal: float, full: float) -> Component:
    """The layers that predict further tokens: a projection of two states, three norms, a block, and the main model's head once more."""
    size, first = model.hidden_size, model.num_hidden_layers
    layers = range(first, first + model.num_nextn_predict_layers)
    held = active = 0
    for layer in layers:
        block = attention_matrices(model) + 2 * size * size
        small = _small(model, layer) + 3 * size
        if model.layer_has_experts(layer):
            always = size * model.n_routed_experts + model.n_shared_experts * matrices_per_expert(model)
            held += block + small + always + model.n_routed_experts * matrices_per_expert(model)
            active += block + always + model.num_experts_per_tok * matrices_per_expert(model)
        else:
            dense = _mlp_matrices(model) * size * model.intermediate_size
            held, active = held + block + small + dense, active + block + dense
    forward = 2.0 * (active + len(layers) * model.vocab_size * size)
    core = [len(layers) * core_flops(model, keys) for keys in (causal, full)]
    return Component("multi-token prediction", held, active, forward + core[0], forward + core[1], mtp=True)
