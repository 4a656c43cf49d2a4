"""The roofline: what one layer's operators cost on one device, each bound by products, by memory or by a link.

A product of matrices runs at a share of the peak that falls with its smallest side; attention's core at a share of its own; what touches
every element once (norms, activation functions, additions, casts to FP8) at memory bandwidth. The shares are `Efficiency`, fitted on the
calibration rows of runs.toml alone.
"""

from dataclasses import dataclass

from spoutnik.plan.chips import Chip
from spoutnik.plan.layout import Layout
from spoutnik.plan.shape import Model


@dataclass(frozen=True)
class Efficiency:
    """Shares of what a chip's data sheet promises."""

    products: float = 0.80
    """Of the BF16 peak, for large matrices."""
    products_fp8: float = 0.68
    attention: float = 0.50
    """Of the BF16 peak."""
    small_side: float = 300.0
    """A product whose smallest side is this runs at half of its share."""
    memory: float = 0.80
    links: float = 0.75
    tensor_hidden: float = 0.6
    """The share of tensor parallelism's traffic that hides behind products where a program overlaps it."""
    expert_hidden: float = 0.3
    """The share of the traffic to experts that hides outside DualPipe."""
    data_hidden: float = 0.8
    """The share of data parallelism's traffic that hides behind products where there are enough of them."""
    host: float = 5e-4
    """Seconds that a program takes at least to start the operators of one dense layer, forward and backward."""
    host_experts: float = 6e-3
    """The same for a layer with routed experts, whose sizes the host has to learn first."""
    software: float = 1.0
    """What the program at hand reaches of all that."""


@dataclass(frozen=True)
class LayerTime:
    """Seconds that one microbatch takes on one device in one layer."""

    forward: float
    inputs: float
    """Backward for inputs, with what is recomputed."""
    weights: float
    """Backward for weights."""
    traffic_forward: float
    """Communication that a forward waits for if nothing hides it: tensor, context and expert parallelism."""
    traffic_backward: float
    experts_forward: float = 0.0
    """The part of the traffic that goes to experts and back, which DualPipe hides."""
    experts_backward: float = 0.0


def product_seconds(chip: Chip, how: Efficiency, precision: str, rows: float, inner: float, outer: float) -> float:
    """One product (rows x inner) (inner x outer)."""
    if min(rows, inner, outer) <= 0:
        return 0.0
    fast = precision != "bf16" and bool(chip.fp8_tflops)
    peak = ((chip.fp8_tflops or 0.0) * how.products_fp8 if fast else chip.rate("fp16") / 1e12 * how.products) * 1e12
    side = min(rows, inner, outer)
    compute = 2 * rows * inner * outer / (peak * side / (side + how.small_side))
    width = 1.0 if fast else 2.0
    traffic = width * (rows * inner + inner * outer) + 2 * rows * outer
    return max(compute, memory_seconds(chip, how, traffic))


def memory_seconds(chip: Chip, how: Efficiency, size: float) -> float:
    """Reading or writing `size` bytes."""
    return size / (chip.bandwidth_tbs * 1e12 * how.memory)


def link_bandwidth(chip: Chip, how: Efficiency, members: int, stride: int) -> float:
    """Bytes a second and device within a group of `members` devices that lie `stride` apart in the numbering of the cluster.

    Within a node NVLink's one direction; across nodes each device's own network card, which neighbours of the group in the node share
    out, so that a ring over whole nodes is as fast as all of a node's cards together, but never faster than NVLink.
    """
    per_node = max(1, min(members, chip.devices_per_node // max(1, stride)))
    inside = chip.scale_up_gbs / 2 * 1e9 * how.links
    if members <= per_node:
        return inside
    return min(inside, per_node * chip.scale_out_gbs * 1e9 * how.links)


def layer_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, layer: int) -> LayerTime:
    """Decoder layer `layer` (multi-token prediction layers follow the main ones)."""
    tokens, ways = layout.tokens_per_microbatch, layout.tensor
    matrices = attention_matrices(model, ways) + mlp_matrices(model, layer, ways)
    forward = sum(product_seconds(chip, how, layout.precision, tokens, inner, outer) for inner, outer in matrices)
    back = sum(product_seconds(chip, how, layout.precision, tokens, outer, inner) for inner, outer in matrices)
    weights = sum(product_seconds(chip, how, layout.precision, inner, tokens, outer) for inner, outer in matrices)
    if model.layer_has_experts(layer):
        routed = _routed_seconds(model, layout, chip, how, tokens)
        forward, back, weights = forward + routed, back + routed, weights + routed
    core = _core_seconds(model, layout, chip, how, tokens)
    touched = memory_seconds(chip, how, tokens * _touched_bytes(model, layout, layer) / ways)
    repeated = {"none": 0.0, "selective": touched + _up_seconds(model, layout, chip, how, tokens), "full": forward + core + touched}
    tensor = _tensor_seconds(model, layout, chip, how, tokens)
    context = _context_seconds(model, layout, chip, how, tokens)
    experts = _expert_seconds(model, layout, chip, how, tokens) if model.layer_has_experts(layer) else 0.0
    again = 1.5 if layout.recompute == "full" else 1.0
    passes = (forward + core + touched, back + 2.5 * core + 2 * touched + repeated[layout.recompute], weights)
    least = how.host_experts if model.layer_has_experts(layer) and layout.schedule[:8] != "dualpipe" else how.host
    slower = max(1.0, least / sum(passes))
    return LayerTime(
        forward=slower * passes[0],
        inputs=slower * passes[1],
        weights=slower * passes[2],
        traffic_forward=tensor + max(0.0, context - core),
        traffic_backward=again * tensor + max(0.0, 2 * context - 2.5 * core),
        experts_forward=experts,
        experts_backward=experts,
    )


def attention_matrices(model: Model, ways: int) -> list[tuple[float, float]]:
    """(inner, outer) of the projections of one layer that one of `ways` devices multiplies by."""
    size, heads = model.hidden_size, model.num_attention_heads / ways
    if not model.is_latent:
        keys = max(model.num_key_value_heads / ways, 1)
        return [(size, (heads + 2 * keys) * model.head_dim), (heads * model.head_dim, size)]
    query = model.qk_nope_head_dim + model.qk_rope_head_dim
    down = (model.q_lora_rank or 0) + model.kv_lora_rank + model.qk_rope_head_dim
    up = model.kv_lora_rank, heads * (model.qk_nope_head_dim + model.v_head_dim)
    return [(size, down), (model.q_lora_rank or size, heads * query), up, (heads * model.v_head_dim, size)]


def mlp_matrices(model: Model, layer: int, ways: int) -> list[tuple[float, float]]:
    """(inner, outer) of a dense MLP, or of the shared experts and the router."""
    size = model.hidden_size
    if model.layer_has_experts(layer):
        width = model.n_shared_experts * model.moe_intermediate_size / ways
        return [(size, 2 * width), (width, size), (size, model.n_routed_experts)]
    gates = getattr(model, "mlp_matrices", 3) - 1
    return [(size, gates * model.intermediate_size / ways), (model.intermediate_size / ways, size)]


def _routed_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """The experts on one device with an even load: those of its group send it as many rows as it sends away."""
    held = model.n_routed_experts / layout.expert
    rows = tokens / layout.tensor * model.num_experts_per_tok / held
    width, size = model.moe_intermediate_size, model.hidden_size
    up = product_seconds(chip, how, layout.precision, rows, size, 2 * width)
    return held * (up + product_seconds(chip, how, layout.precision, rows, width, size))


def _core_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """Scores and weighted values over a causal sequence, forward."""
    keys = layout.sequence_length / 2
    if model.sliding_window is not None:
        keys = min(keys, model.sliding_window)
    width = model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim if model.is_latent else 2 * model.head_dim
    flops = 2 * tokens * keys * model.num_attention_heads / layout.tensor * width
    return flops / (chip.rate("fp16") * how.attention)


def _touched_bytes(model: Model, layout: Layout, layer: int) -> float:
    """Bytes a token that the forward's element-wise operators read and write: two norms (read, write), two additions (twice read, write),
    rotary turns, silu and its product, and casts to FP8 (read two bytes, write one)."""
    size = model.hidden_size
    heads = model.num_attention_heads * (model.head_dim or model.qk_nope_head_dim + model.qk_rope_head_dim)
    if model.layer_has_experts(layer):
        width = (model.n_shared_experts + model.num_experts_per_tok) * model.moe_intermediate_size
        sent = 4.0 * model.num_experts_per_tok * size
    else:
        width, sent = model.intermediate_size, 0.0
    casts = 3.0 * (2 * size + heads + width) if layout.precision != "bf16" else 0.0
    return 2 * 4.0 * size + 2 * 6.0 * size + 4.0 * heads + 6.0 * width + sent + casts


def _up_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """Latent attention's up-projections again."""
    if not model.is_latent:
        return 0.0
    return sum(product_seconds(chip, how, layout.precision, tokens, *shape) for shape in attention_matrices(model, layout.tensor)[1:3])


def _tensor_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """Two gathers and two scatters of the activations a pass (sequence parallelism), less what hides."""
    if layout.tensor == 1:
        return 0.0
    size = 4 * tokens * model.hidden_size * 2.0 * (layout.tensor - 1) / layout.tensor
    hidden = how.tensor_hidden if layout.overlap else 0.0
    return size / link_bandwidth(chip, how, layout.tensor, 1) * (1 - hidden)


def _context_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """A ring that hands on keys and values; it runs beside attention's core, so only the excess counts."""
    if layout.context == 1:
        return 0.0
    width = model.num_attention_heads * (model.qk_nope_head_dim + model.v_head_dim) if model.is_latent else 0
    width = width or 2 * model.num_key_value_heads * model.head_dim
    size = tokens * width * 2.0 / layout.tensor * (layout.context - 1)
    return size / link_bandwidth(chip, how, layout.context, layout.tensor)


def _expert_seconds(model: Model, layout: Layout, chip: Chip, how: Efficiency, tokens: float) -> float:
    """Sending tokens to their experts (a byte an element and scales in FP8, else two) and getting two bytes an element back.

    Across nodes a token travels once to each node it goes to, at most `topk_group` where groups of experts are nodes, and on through
    NVLink; so its experts' count does not matter there (DeepSeek-V3's report, section 3.2.2).
    """
    if layout.expert == 1:
        return 0.0
    size = 2.0 if layout.precision == "bf16" else 1 + 4 / 128
    each = model.hidden_size * (size + 2.0) * tokens / layout.tensor
    up = chip.scale_up_gbs / 2 * 1e9 * how.links
    inside = each * model.num_experts_per_tok / up
    nodes = layout.expert * layout.tensor / chip.devices_per_node
    if nodes <= 1:
        return inside * (layout.expert - 1) / layout.expert
    limit = model.topk_group if model.n_group > 1 else model.num_experts_per_tok
    reached = nodes * (1 - (1 - 1 / nodes) ** model.num_experts_per_tok)
    across = each * min(limit, reached) * (1 - 1 / nodes) / (chip.scale_out_gbs * 1e9 * how.links)
    return max(inside, across)
