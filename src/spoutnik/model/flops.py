"""How many parameters a configuration has and how many floating-point operations it costs, from its sizes alone.

A multiply-add counts as 2. Counted: every matrix multiplication, attention's two included. Not counted: norms, activations, rotary turns,
softmax, sampling, the embedding's look-up, optimisers and recomputation. Latent attention is counted in its naive form. So counted,
DeepSeek-V3 (without multi-token prediction) trains at 250.4 GFLOP a token over sequences of 4,096.
"""

from typing import NamedTuple

from spoutnik.model.config import ModelConfig


class Parameters(NamedTuple):
    """Counts of one model; buffers such as the router's bias are not parameters."""

    total: int
    active: int
    """Those that one token uses: of the routed experts only `num_experts_per_tok`. The embedding table counts whole."""


def parameters(config: ModelConfig) -> Parameters:
    """The main model's parameters. Multi-token prediction layers stand apart, as in the published sizes (V3: 671 B)."""
    embedding, norm = config.vocab_size * config.hidden_size, config.hidden_size
    shared = embedding * (1 if config.tie_word_embeddings else 2) + norm
    layers = [_layer_parameters(config, layer) for layer in range(config.num_hidden_layers)]
    return Parameters(shared + sum(layer.total for layer in layers), shared + sum(layer.active for layer in layers))


def mtp_parameters(config: ModelConfig) -> Parameters:
    """What the multi-token prediction layers add to `parameters`; embedding and head are the main model's."""
    size, first = config.hidden_size, config.num_hidden_layers
    layers = [_layer_parameters(config, layer) for layer in range(first, first + config.num_nextn_predict_layers)]
    own = len(layers) * (2 * size * size + 3 * size)
    return Parameters(own + sum(layer.total for layer in layers), own + sum(layer.active for layer in layers))


def forward_flops(config: ModelConfig, tokens: float, context_length: float) -> float:
    """Operations of running `tokens` tokens through the main model and its head, each looking at `context_length` keys on average.

    For whole causal sequences of length T that average is (T + 1) / 2; for a token decoded at position t it is t + 1. A sliding window
    bounds it.
    """
    return tokens * _forward_per_token(config, range(config.num_hidden_layers), context_length)


def training_flops(config: ModelConfig, tokens: float, sequence_length: float) -> float:
    """Operations of forward and backward (twice the forward) over causal sequences, multi-token prediction and its heads included."""
    keys = _mean_causal_keys(sequence_length, config.sliding_window)
    mtp = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    forward = forward_flops(config, tokens, keys)
    if mtp:
        projection = 2 * 2 * config.hidden_size**2 * len(mtp)
        head_again = 2 * config.vocab_size * config.hidden_size * (len(mtp) - 1)
        forward += tokens * (_forward_per_token(config, mtp, keys) + projection + head_again)
    return 3.0 * forward


def _mean_causal_keys(length: float, window: int | None) -> float:
    """Keys that a token of a causal sequence sees, averaged over the sequence."""
    if window is None or length <= window:
        return (length + 1) / 2
    return (window * (window + 1) / 2 + (length - window) * window) / length


def _forward_per_token(config: ModelConfig, layers: range, keys: float) -> float:
    """The given layers and one pass of the head."""
    keys = keys if config.sliding_window is None else min(keys, config.sliding_window)
    query_width, value_width = _head_widths(config)
    attention = 2 * keys * config.num_attention_heads * (query_width + value_width)
    multiplied = sum(_attention_matrices(config) + _feed_forward_matrices(config, layer)[1] for layer in layers)
    return 2.0 * (multiplied + config.vocab_size * config.hidden_size) + len(layers) * attention


def _head_widths(config: ModelConfig) -> tuple[int, int]:
    """Channels of one query (and key) and of one value."""
    if config.is_latent:
        return config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    return config.head_dim, config.head_dim


def _layer_parameters(config: ModelConfig, layer: int) -> Parameters:
    fixed = _attention_matrices(config) + 2 * config.hidden_size + _small_parameters(config)
    total, active = _feed_forward_matrices(config, layer)
    return Parameters(fixed + total, fixed + active)


def _attention_matrices(config: ModelConfig) -> int:
    size, heads = config.hidden_size, config.num_attention_heads
    query_width, value_width = _head_widths(config)
    if not config.is_latent:
        return 2 * size * (heads + config.num_key_value_heads) * config.head_dim
    rank = config.q_lora_rank
    query = rank * (size + heads * query_width) if rank else size * heads * query_width
    latent = size * (config.kv_lora_rank + config.qk_rope_head_dim) + config.kv_lora_rank * heads * (config.qk_nope_head_dim + value_width)
    return query + latent + heads * value_width * size


def _feed_forward_matrices(config: ModelConfig, layer: int) -> tuple[int, int]:
    """(held, used by one token)"""
    if not config.layer_has_experts(layer):
        dense = 3 * config.hidden_size * config.intermediate_size
        return dense, dense
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    always = config.hidden_size * config.n_routed_experts + config.n_shared_experts * expert
    return always + config.n_routed_experts * expert, always + config.num_experts_per_tok * expert


def _small_parameters(config: ModelConfig) -> int:
    """Biases, and the norms of the latents."""
    if config.is_latent:
        return config.kv_lora_rank + (config.q_lora_rank or 0)
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = (query + 2 * key + (config.hidden_size if config.model_type == "llama" else 0)) if config.attention_bias else 0
    return attention + (2 * config.intermediate_size + config.hidden_size if config.mlp_bias else 0)
