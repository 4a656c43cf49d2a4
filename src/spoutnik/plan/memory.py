"""What one device holds while it trains, in bytes: the device of the pipeline that holds most.

States follow Rajbhandari et al. 2020 (ZeRO) with DeepSeek-V3's variant (moments in BF16, master weights and gradients in FP32: its report,
section 3.3.2); activations count what the backward needs of every operation, as Korthikanti et al. 2022 (arXiv 2205.05198) do, whose
formulas for GPT they give exactly; how many microbatches are held is the schedule's.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache

from spoutnik.plan.layout import Layout
from spoutnik.plan.pieces import Pieces, pieces
from spoutnik.plan.schedule import Durations, formulas, generate, simulate
from spoutnik.plan.shape import Model

GIB = 2**30
STATES = {
    "adamw": (2.0, 4.0, 12.0),
    "adamw-fsdp": (4.0, 4.0, 8.0),
    "adamw-v3": (2.0, 4.0, 8.0),
    "muon": (2.0, 4.0, 8.0),
}
"""Bytes a parameter takes as weight, gradient, and state of the optimiser (master weights and moments)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    cache: float
    """Keys and values, while a model generates; training has none."""
    buffers: float
    """Weights gathered for use under ZeRO 3, logits and their gradients, what is on its way to experts."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(asdict(self).values())

    @property
    def gib(self) -> float:
        """All of it in units of 2**30 bytes."""
        return self.total / GIB


def memory(model: Model, layout: Layout, parts: Pieces | None = None) -> Memory:
    """What the fullest device holds. `parts` saves counting them again."""
    parts = parts or pieces(model)
    dense, routed = _parameters_held(model, parts, layout)
    dense_ways = layout.data * layout.context
    routed_ways = max(1, layout.data * layout.context * layout.tensor // layout.expert)
    weight, gradient, state = STATES[layout.optimiser]
    if layout.precision == "fp8-kept":
        weight = 1.0

    def held(bytes_each: float, from_stage: int) -> float:
        if layout.zero < from_stage:
            return bytes_each * (dense + routed)
        return bytes_each * (dense / dense_ways + routed / routed_ways)

    return Memory(
        weights=held(weight, 3),
        gradients=held(gradient, 2),
        optimiser=held(state, 1),
        activations=_activations(model, parts, layout),
        cache=0.0,
        buffers=_buffers(model, parts, layout),
    )


def _parameters_held(model: Model, parts: Pieces, layout: Layout) -> tuple[float, float]:
    """(dense, routed) parameters on the device with most, before ZeRO shares them."""
    layers = min(parts.layers, -(-parts.layers // layout.stages) * layout.stages_per_device)
    ends = parts.embedding if layout.pipeline > 1 and layout.schedule in ("1f1b", "zb1p", "interleaved") else parts.embedding + parts.head
    dense = layers * parts.dense_per_layer + ends + (parts.joined if layout.pipeline == 1 or layout.stages_per_device > 1 else 0)
    routed = layers / parts.layers * parts.routed
    return dense / layout.tensor, routed / layout.expert


def _activations(model: Model, parts: Pieces, layout: Layout) -> float:
    tokens = layout.tokens_per_microbatch / layout.tensor
    layers = -(-parts.layers // layout.stages)
    per_layer = tokens * layer_bytes(model, layout)
    held = layers * per_layer * most_in_flight(layout)
    if layout.recompute == "full":
        held += tokens * layer_bytes(model, _without_recompute(layout))
    return held


def _without_recompute(layout: Layout) -> Layout:
    return Layout(**{**layout.to_dict(), "recompute": "none"})


def layer_bytes(model: Model, layout: Layout) -> float:
    """Bytes kept for the backward of one token in one layer, averaged over the layers."""
    size = model.hidden_size
    if layout.recompute == "full":
        return 2.0 * size
    if getattr(model, "mlp_matrices", 3) == 2:
        # Korthikanti et al. 2022, equation 6: a block like GPT-3's, with dropout, its attention's core computed again.
        return 18.0 * size + 4.0 * model.intermediate_size
    narrow = 1.0 if layout.precision == "fp8-kept" else 2.0
    none = layout.recompute == "none"
    if model.is_latent:
        heads, rank = model.num_attention_heads, (model.q_lora_rank or 0) + model.kv_lora_rank
        query = model.qk_nope_head_dim + model.qk_rope_head_dim
        latents = narrow * (rank + model.qk_rope_head_dim)
        attention = latents + (2.0 * heads * (2 * query + model.v_head_dim) if none else 0.0)
        out = narrow * heads * model.v_head_dim
    else:
        attention = 2.0 * model.head_dim * (model.num_attention_heads + 2 * model.num_key_value_heads)
        out = narrow * model.head_dim * model.num_attention_heads
    residual = 2 * 2.0 * size + (2 * narrow * size if none else 0.0)
    return attention + out + residual + _feed_forward_bytes(model, narrow, none)


def _feed_forward_bytes(model: Model, narrow: float, none: bool) -> float:
    """Gate and up, and with nothing recomputed silu(gate) and its product with up; tokens sent to experts are kept once for each."""
    each = 2 * narrow + (2.0 + narrow if none else 0.0)
    width = 0.0
    for layer in range(model.num_hidden_layers):
        if model.layer_has_experts(layer):
            experts = model.num_experts_per_tok + model.n_shared_experts
            width += experts * model.moe_intermediate_size * each + model.num_experts_per_tok * model.hidden_size * narrow
        else:
            width += model.intermediate_size * each
    return width / model.num_hidden_layers


@lru_cache(maxsize=4096)
def _in_flight(schedule: str, pipeline: int, microbatches: int, chunks: int) -> int:
    if microbatches < 4 * pipeline:
        return max(simulate(generate(schedule, pipeline, microbatches, chunks), Durations(1, 2, 1)).in_flight())
    return formulas.activations(schedule, pipeline, chunks)


def most_in_flight(layout: Layout) -> int:
    """Microbatches of one stage whose activations a device holds at most."""
    if layout.pipeline == 1:
        return 1
    return _in_flight(layout.schedule, layout.pipeline, layout.microbatches, layout.chunks)


def _buffers(model: Model, parts: Pieces, layout: Layout) -> float:
    tokens = layout.tokens_per_microbatch
    last = layout.pipeline == 1 or layout.schedule in ("zbv", "dualpipe", "dualpipev")
    logits = tokens * model.vocab_size / layout.tensor * (2.0 + 4.0 + 2.0) if last else 0.0
    gathered = 2.0 * (2 * parts.dense_per_layer + max(parts.embedding, parts.head)) / layout.tensor if layout.zero == 3 else 0.0
    sent = tokens / layout.tensor * model.num_experts_per_tok * model.hidden_size * 2 * 2.0 if layout.expert > 1 else 0.0
    return logits + gathered + sent
