"""How long one step of training takes: the layers' times put into stages, the stages into the schedule, and what data parallelism adds."""

from dataclasses import dataclass

from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.layout import Layout
from spoutnik.plan.operators import Efficiency, LayerTime, layer_seconds, link_bandwidth, memory_seconds, product_seconds
from spoutnik.plan.pieces import Pieces, pieces
from spoutnik.plan.schedule import Durations, formulas, generate, simulate
from spoutnik.plan.shape import Model

BUSY_CORES = 20 / 132
"""The share of an H800's processors that carries V3's traffic to experts across nodes (its report, section 3.2.2)."""

COLLECTIVE_HOP = 3e-6
"""Seconds that a ring takes to reach the next device, however little it carries; assumed."""


@dataclass(frozen=True)
class Step:
    """One step of the optimiser on the whole cluster."""

    seconds: float
    parts: dict[str, float]
    """Seconds of: compute, traffic, bubble, data_parallel, optimiser. They add up to `seconds`."""
    mfu: float
    """Operations that the model needs (recomputation not counted, attention causal) over those that the chips could do in BF16."""
    bubble: float
    """The share of the pipeline's time that its fullest device waits."""
    tokens: int
    devices: int
    durations: Durations
    """Of one microbatch on one stage."""

    @property
    def tokens_per_second_per_device(self) -> float:
        """Throughput of one device."""
        return self.tokens / self.seconds / self.devices


def step(model: Model, layout: Layout, chip: Chip, how: Efficiency | None = None, exact: bool = True, parts: Pieces | None = None) -> Step:
    """The roofline's time of one step. `exact` simulates the schedule; otherwise its closed formula is taken.

    Raises UserError where the layout does not fit the model.
    """
    layout.check(model)
    how, sizes = how or Efficiency(), parts or pieces(model)
    compute, traffic = _stage(model, layout, chip, how)
    durations = _durations(compute, traffic, layout, how)
    hop = _hop(model, layout, chip, how)
    pipe, idle = _pipeline(layout, durations, hop, exact)
    gradient = _data_parallel(sizes, layout, chip, how, durations)
    optimiser = _optimiser(sizes, layout, chip, how)
    slower = 1 / how.software
    seconds = slower * (pipe + gradient + optimiser)
    rounds = layout.microbatches * layout.stages_per_device / (2 if layout.schedule == "dualpipe" and layout.pipeline > 1 else 1)
    busy = rounds * (compute.forward + compute.inputs + compute.weights)
    flops = layout.global_batch_tokens * counts(model, layout.sequence_length).training()
    spent = {
        "compute": slower * min(busy, pipe - idle),
        "traffic": slower * max(0.0, pipe - idle - busy),
        "bubble": slower * idle,
        "data_parallel": slower * gradient,
        "optimiser": slower * optimiser,
    }
    return Step(
        seconds=seconds,
        parts=spent,
        mfu=flops / (seconds * layout.devices * chip.rate("fp16")),
        bubble=idle / pipe,
        tokens=layout.global_batch_tokens,
        devices=layout.devices,
        durations=durations,
    )


def _stage(model: Model, layout: Layout, chip: Chip, how: Efficiency) -> tuple[LayerTime, LayerTime]:
    """(compute, traffic) of the slowest stage: its layers, and the head where it does not find room beside fewer layers."""
    layers = model.num_hidden_layers + model.num_nextn_predict_layers
    kinds = [model.layer_has_experts(layer) for layer in range(layers)]
    times = {kind: layer_seconds(model, layout, chip, how, kinds.index(kind)) for kind in set(kinds)}
    share = {kind: kinds.count(kind) / layers for kind in times}
    heads = 1 + model.num_nextn_predict_layers
    tokens = layout.tokens_per_microbatch
    head = heads * product_seconds(chip, how, "bf16", tokens, model.hidden_size, model.vocab_size / layout.tensor)
    loss = heads * memory_seconds(chip, how, tokens * model.vocab_size / layout.tensor * 12.0)

    def total(name: str) -> float:
        return sum(getattr(times[kind], name) * share[kind] for kind in times)

    together = total("forward") + total("inputs") + total("weights")
    full = -(-layers // layout.stages)
    ends = (3 * head + loss) / together
    if layout.schedule in ("1f1b", "zb1p", "interleaved"):
        own = ends / layout.stages_per_device
        slots = max(full, layers // layout.stages + own) if layers % layout.stages else full + own
    else:
        slots = max(full, (layers + ends) / layout.stages)
    scale = slots / (layers + ends) if layout.stages > 1 else 1.0
    layers_here = slots if layout.stages > 1 else layers
    head_here = scale if layout.stages > 1 else 1.0
    plain = layers_here - (ends * scale if layout.stages > 1 else 0.0)
    compute = LayerTime(
        plain * total("forward") + head_here * (head + loss / 3),
        plain * total("inputs") + head_here * (head + loss * 2 / 3),
        plain * total("weights") + head_here * head,
        0.0,
        0.0,
    )
    names = ("traffic_forward", "traffic_backward", "experts_forward", "experts_backward")
    traffic = LayerTime(0.0, 0.0, 0.0, *(plain * total(name) for name in names))
    return compute, traffic


def _durations(compute: LayerTime, traffic: LayerTime, layout: Layout, how: Efficiency) -> Durations:
    forward, backward = compute.forward, compute.inputs + compute.weights
    if not layout.schedule.startswith("dualpipe") or layout.pipeline == 1:
        shown = 1 - how.expert_hidden
        return Durations(
            forward + traffic.traffic_forward + shown * traffic.experts_forward,
            backward + traffic.traffic_backward + shown * traffic.experts_backward,
            compute.weights,
        )
    busy = 1 / (1 - BUSY_CORES) if traffic.experts_forward else 1.0
    forward, backward = busy * forward + traffic.traffic_forward, busy * backward + traffic.traffic_backward
    return Durations(
        forward + traffic.experts_forward,
        backward + traffic.experts_backward,
        busy * compute.weights,
        max(forward + backward, traffic.experts_forward + traffic.experts_backward),
    )


def _hop(model: Model, layout: Layout, chip: Chip, how: Efficiency) -> float:
    """Activations on their way to the next stage, which lies in another node."""
    if layout.pipeline == 1:
        return 0.0
    size = layout.tokens_per_microbatch * model.hidden_size * 2.0 / layout.tensor
    return size / (min(chip.scale_out_gbs, chip.scale_up_gbs / 2) * 1e9 * how.links)


def _pipeline(layout: Layout, durations: Durations, hop: float, exact: bool) -> tuple[float, float]:
    """(seconds, seconds waited) of the schedule. Its middle repeats itself, so a long one is carried on from a shorter one."""
    devices, count = layout.pipeline, layout.microbatches
    if devices == 1:
        return count * (durations.forward + durations.backward), 0.0
    if not exact:
        idle = formulas.bubble(layout.schedule, devices, durations) + (devices if layout.schedule == "zbv" else 0) * durations.forward
        pairs = durations.of("FB") if layout.schedule.startswith("dualpipe") else durations.forward + durations.backward
        rounds = count * layout.stages_per_device / (2 if layout.schedule == "dualpipe" else 1)
        return rounds * pairs + idle, idle
    short = 4 * devices + count % (2 * devices)
    if count <= short + 2 * devices:
        timeline = simulate(generate(layout.schedule, devices, count, layout.chunks), durations, hop)
        return timeline.seconds, timeline.idle
    first, second = (simulate(generate(layout.schedule, devices, n, layout.chunks), durations, hop) for n in (short, short + 2 * devices))
    more = (count - short) / (2 * devices)
    return first.seconds + more * (second.seconds - first.seconds), first.idle + more * (second.idle - first.idle)


def _data_parallel(parts: Pieces, layout: Layout, chip: Chip, how: Efficiency, durations: Durations) -> float:
    """What the step waits for gradients on their way to other replicas and weights on their way back, beyond what hides behind the first
    forward and the last backward (ZeRO 3: behind every microbatch)."""
    members = layout.data * layout.context
    if members == 1:
        return 0.0
    on_device = layout.stages_per_device / layout.stages
    dense = (parts.layers * parts.dense_per_layer * on_device + parts.embedding) / layout.tensor
    width = link_bandwidth(chip, how, members, layout.tensor)
    ring = (members - 1) / members * dense / width
    replicas = members * layout.tensor // layout.expert
    if parts.routed and replicas > 1:
        stride = layout.tensor * layout.expert
        ring += (replicas - 1) / replicas * parts.routed * on_device / layout.expert / link_bandwidth(chip, how, replicas, stride)
    gather = ring * (1.0 if layout.precision != "bf16" and layout.zero == 3 else 2.0)
    scatter = ring * 4.0
    forward, backward = (layout.stages_per_device * seconds for seconds in (durations.forward, durations.backward))
    rounds = parts.layers * on_device * COLLECTIVE_HOP * (members - 1)
    gather, scatter = gather + rounds, scatter + rounds
    hidden = how.data_hidden

    def shown(traffic: float, compute: float) -> float:
        return (1 - hidden) * traffic + max(0.0, hidden * traffic - compute)

    if layout.zero < 3:
        return shown(scatter, backward) + shown(gather, forward)
    return layout.microbatches * (shown(gather, forward) + shown(gather + scatter, backward))


def _optimiser(parts: Pieces, layout: Layout, chip: Chip, how: Efficiency) -> float:
    """Reading gradients, and reading and writing master weights and moments: 30 bytes a parameter."""
    on_device = layout.stages_per_device / layout.stages
    dense = (parts.layers * parts.dense_per_layer * on_device + parts.embedding) / layout.tensor
    routed = parts.routed * on_device / layout.expert
    if layout.zero:
        dense /= layout.data * layout.context
        routed /= max(1, layout.data * layout.context * layout.tensor // layout.expert)
    return memory_seconds(chip, how, 30.0 * (dense + routed))
