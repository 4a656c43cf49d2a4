"""How fast a model answers on given chips: a roofline of prefill and of decoding, from the model's sizes alone.

A unit is the devices that hold one copy of the model. Experts are spread over all of them; attention is either copied to each device, which
then has requests of its own (`tensor` = 1), or cut into `tensor` parts that share their requests. Every time is the least that the chip's
figures allow: what a real engine reaches of it is the business of `serving.py`.

Sources: DeepSeek-V3 technical report (2412.19437), sections 3.4 and 5.4.3; "Insights into DeepSeek-V3" (2505.09343), section 2.3.2, for the
traffic of experts while decoding; DeepSeek's open-infra-index, day 6, for units and overlap.
"""

import math
from dataclasses import dataclass

from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.shape import Model

SCALES = 1 + 4 / 128
"""Bytes of a value in 8 bits with one float32 scale for 128 of them."""
ROOM = 0.9
"""Share of a device's memory that weights and cache may take; the rest is for activations and buffers."""


@dataclass(frozen=True)
class Unit:
    """The devices that hold one copy of a model; `spare_experts` are copies of busy experts (DeepSeek: 32)."""

    devices: int
    tensor: int = 1
    spare_experts: int = 0


@dataclass(frozen=True)
class Step:
    """The least seconds of one step on one device, and what they are made of."""

    matrices: float
    attention: float
    traffic: float
    """Tokens on their way to experts and back."""
    sums: float
    """Parts of a cut layer's output that are added up; nothing runs meanwhile."""

    @property
    def seconds(self) -> float:
        """Two half batches take turns, so that one computes while the other's tokens travel."""
        return max(self.matrices + self.attention, self.traffic) + self.sums

    @property
    def bound_by(self) -> str:
        """What takes longest: "traffic", "matrices", "attention" or "sums"."""
        parts = {"matrices": self.matrices, "attention": self.attention, "traffic": self.traffic, "sums": self.sums}
        if self.traffic <= self.matrices + self.attention:
            del parts["traffic"]
        return max(parts, key=lambda part: parts[part])


def cache_bytes_per_token(config: Model, bytes_per_value: float = 2.0) -> float:
    """Keys and values of one token in all layers; with latent attention the latent and the shared rotary key (V3: 70,272 bytes)."""
    width = config.kv_lora_rank + config.qk_rope_head_dim if config.is_latent else 2 * config.num_key_value_heads * config.head_dim
    return float(config.num_hidden_layers * width * bytes_per_value)


def weight_bytes(config: Model, unit: Unit, chip: Chip) -> float:
    """What one device of the unit holds of the model."""
    expert, always, table = _sizes(config)
    layers = _expert_layers(config)
    held = layers * (config.n_routed_experts + unit.spare_experts) / unit.devices if layers else 0.0
    return (always / unit.tensor + held * expert) * value_bytes(chip) + 2.0 * table / unit.tensor


def most_sequences(config: Model, unit: Unit, chip: Chip, context: float, cache_value_bytes: float = 2.0) -> float:
    """How many requests with `context` tokens of cache fit beside the weights, for each group of `tensor` devices; below 1: none."""
    room = ROOM * chip.memory_gb * 1e9 - weight_bytes(config, unit, chip)
    return room / (context * _cache_share(config, unit) * cache_bytes_per_token(config, cache_value_bytes))


def prefill(config: Model, unit: Unit, chip: Chip, prompt: float, found: float = 0.0) -> float:
    """The least device-seconds for one token of a prompt that is computed, where a share `found` of the prompt lies in the cache."""
    computed = prompt * (1 - found)
    keys = prompt * found + (computed + 1) / 2
    matrices = matrix_flops(config) / _matrix_speed(chip) + _prefill_attention_flops(config, keys) / chip.rate("fp16")
    away = _expert_traffic(config, unit, _copies_away(config, unit, chip))
    return max(matrices, away / _link(unit, chip)) + unit.tensor * _sum_seconds(config, unit, chip)


def decode(
    config: Model, unit: Unit, chip: Chip, sequences: float, context: float, drafts: int = 0, cache_value_bytes: float = 2.0
) -> Step:
    """One step that reads the weights once for `sequences` requests of each group, each with `context` cached tokens, `drafts` guesses."""
    tokens = sequences * (1 + drafts)
    expert, always, _ = _sizes(config)
    layers, bandwidth = _expert_layers(config), chip.bandwidth_tbs * 1e12
    held = (config.n_routed_experts + unit.spare_experts) / unit.devices if layers else 0.0
    touched = (
        held * (1 - (1 - config.num_experts_per_tok / config.n_routed_experts) ** (tokens * unit.devices / unit.tensor)) if held else 0.0
    )
    read = (always / unit.tensor + layers * touched * expert) * value_bytes(chip)
    per_token = matrix_flops(config) / unit.tensor
    cache = sequences * context * _cache_share(config, unit) * cache_bytes_per_token(config, cache_value_bytes)
    core = tokens * _decode_attention_flops(config, context) / unit.tensor
    traffic = _expert_traffic(config, unit, config.num_experts_per_tok * (1 - 1 / unit.devices))
    return Step(
        max(read / bandwidth, tokens * per_token / _matrix_speed(chip)),
        max(cache / bandwidth, core / chip.rate("fp16")),
        tokens * traffic / unit.tensor / _link(unit, chip),
        tokens * _sum_seconds(config, unit, chip),
    )


def value_bytes(chip: Chip) -> float:
    """Bytes of one weight: 1 (with scales) where the chip multiplies in 8-bit floating point, else 2."""
    return SCALES if chip.fp8_tflops else 2.0


def _matrix_speed(chip: Chip) -> float:
    return chip.rate("fp8") if chip.fp8_tflops else chip.rate("fp16")


def _sizes(config: Model) -> tuple[float, float, float]:
    """Parameters of one expert; of all that every token passes, the output head included; of the embedding table."""
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    table = config.vocab_size * config.hidden_size
    always = counts(config).parameters - _expert_layers(config) * config.n_routed_experts * expert - table
    return float(expert), float(always if not config.tie_word_embeddings else always + table), float(table)


def _expert_layers(config: Model) -> int:
    return sum(config.layer_has_experts(layer) for layer in range(config.num_hidden_layers))


def _cache_share(config: Model, unit: Unit) -> float:
    """What one device holds of a request's cache: latents cannot be cut by heads."""
    return 1.0 if config.is_latent else 1 / min(unit.tensor, config.num_key_value_heads)


def matrix_flops(config: Model) -> float:
    """Operations of one token forward without attention's own: they do not depend on how far it looks back."""
    return 2.0 * counts(config).multiplied_parameters


def decode_flops(config: Model, context: float) -> float:
    """Operations of one token written after `context` others."""
    return matrix_flops(config) + _decode_attention_flops(config, context)


def _prefill_attention_flops(config: Model, keys: float) -> float:
    """Scores and weighted values of one token that looks at `keys` others; latent attention in its naive form."""
    widths = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim if config.is_latent else 2 * config.head_dim
    return 2.0 * config.num_hidden_layers * _seen(config, keys) * config.num_attention_heads * widths


def _seen(config: Model, keys: float) -> float:
    return keys if config.sliding_window is None else min(keys, config.sliding_window)


def _decode_attention_flops(config: Model, context: float) -> float:
    """Scores and weighted values of one token; latent attention in its absorbed form, on the latents themselves."""
    widths = 2 * config.kv_lora_rank + config.qk_rope_head_dim if config.is_latent else 2 * config.head_dim
    return 2.0 * config.num_hidden_layers * _seen(config, context) * config.num_attention_heads * widths


def _expert_traffic(config: Model, unit: Unit, copies: float) -> float:
    """Bytes that one token sends and gets back: out in 8 bits, back in 16, in every layer with experts."""
    if unit.devices == 1 or not config.n_routed_experts:
        return 0.0
    return _expert_layers(config) * copies * config.hidden_size * (SCALES + 2)


def _sum_seconds(config: Model, unit: Unit, chip: Chip) -> float:
    """Seconds for one token's two sums a layer in 16 bits, by a ring within the node."""
    if unit.tensor == 1:
        return 0.0
    sent = 2 * config.num_hidden_layers * 2 * (unit.tensor - 1) / unit.tensor * config.hidden_size * 2
    return sent / (chip.scale_up_gbs / 2 * 1e9)


def _copies_away(config: Model, unit: Unit, chip: Chip) -> float:
    """To how many others a prompt's token goes: one copy a node, which hands it on, or within a node one a device."""
    if unit.devices <= chip.devices_per_node:
        return min(config.num_experts_per_tok, unit.devices) * (1 - 1 / unit.devices)
    nodes = unit.devices / chip.devices_per_node
    most = config.topk_group if config.n_group > 1 else config.num_experts_per_tok
    return min(config.num_experts_per_tok, most, nodes) * (1 - 1 / nodes)


def _link(unit: Unit, chip: Chip) -> float:
    """Bytes a second that one device sends to others of the unit: within a node half of the two-way figure. One device alone sends none."""
    if unit.devices == 1:
        return math.inf
    return (chip.scale_up_gbs / 2 if unit.devices <= chip.devices_per_node else chip.scale_out_gbs) * 1e9
