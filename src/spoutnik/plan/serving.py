"""A service: how many nodes answer so many tokens a day, with prefill and decoding apart, and what a token costs.

Throughput is either given (what somebody measured or disclosed for a node) or predicted: the roofline of `inference.py` times the share of
it that engines reach (`rates.py`). A fleet also waits for requests: its load is the share of its time that it is full.
"""

from dataclasses import dataclass

import numpy as np

from spoutnik.errors import UserError
from spoutnik.plan import inference, rates, units
from spoutnik.plan.bill import Rent, bill, rate_of
from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.inference import Unit
from spoutnik.plan.model_figures import model_figures
from spoutnik.plan.rates import decode_reach, prefill_reach
from spoutnik.plan.result import Line, Plan
from spoutnik.plan.shape import Model
from spoutnik.plan.sums import line_of
from spoutnik.plan.uncertain import apply, samples_of

BUSY = "prefill_nodes + decode_nodes"
"""The nodes of a fleet whose tokens fill more than one copy, as a formula."""


@dataclass(frozen=True)
class Service:
    """What is asked for: tokens a day, and how fast each user wants to read."""

    input_tokens: float
    output_tokens: float
    found: float = 0.0
    """Share of the input tokens whose keys and values lie in a cache."""
    prompt: float = 4096.0
    """Mean tokens of a prompt."""
    context: float = 5000.0
    """Mean tokens of a request's cache while it is being answered."""
    speed: float = 20.0
    """Tokens a second for each user."""
    days: float = 30.0
    accepted: float = 0.0
    """Share of the guesses of a multi-token prediction layer that count; 0: it is not used."""

    def __post_init__(self) -> None:
        if self.input_tokens < 0 or self.output_tokens < 0 or self.input_tokens + self.output_tokens == 0:
            raise UserError("A service needs tokens to answer; give --input-tokens and --output-tokens a day, as in 608B and 168B.")
        if not 0 <= self.found < 1:
            raise UserError(
                "--cache-hits {found:g} is no share of the input; it must be at least 0 and below 1, as in 0.563.", found=self.found
            )
        if not 0 <= self.accepted <= 1:
            raise UserError("--mtp {accepted:g} is no share of guesses; it must lie between 0 and 1, as in 0.85.", accepted=self.accepted)
        if min(self.prompt, self.context, self.speed, self.days) <= 0:
            raise UserError("--prompt, --context, --speed and --days must all be above 0.")
        if self.context < self.prompt:
            raise UserError(
                "--context {context:g} leaves no room for --prompt {prompt:g}, which lies in the cache while a request is answered; "
                "give more context, or a shorter prompt.",
                context=self.context, prompt=self.prompt,
            )  # fmt: skip


@dataclass(frozen=True)
class Throughput:
    """What one node does in a second, as somebody published it: tokens read (those found in the cache included), tokens written."""

    prefill: float
    decode: float
    source: str
    status: Status = "claimed"

    def __post_init__(self) -> None:
        if not min(self.prefill, self.decode) > 0:
            raise UserError("Tokens that a node reads and writes a second (--prefill-per-node, --decode-per-node) must be above 0.")


def plan_serving(
    config: Model, title: str, chip: Chip, service: Service, rent: Rent, given: Throughput | None = None, unit: Unit | None = None
) -> Plan:
    """The nodes, hours and money of `service.days` days. Raises UserError where no number of devices gives the speed that is asked for."""
    if service.accepted and not config.num_nextn_predict_layers:
        raise UserError("{title} has no multi-token prediction layer to guess with; leave --mtp out.", title=title)
    figures = _model_figures(config, service)
    memory: dict[str, float] = {}
    if given:
        figures |= _given_rates(given)
    else:
        decode_unit, sequences = _decode_unit(config, chip, service, unit)
        figures |= _predicted_rates(config, chip, service, decode_unit, _prefill_unit(config, chip, service, unit), sequences)
        memory, figures["memory_gib_per_device"] = units.held(config, decode_unit, chip, sequences, service.context)
    least = unit or _least_unit(config, chip, service) if not given else None
    figures |= _fleet(chip, service, figures, least.devices if least else chip.devices_per_node)
    figures |= bill(figures["gpu_hours"], chip, rent)
    figures |= _token_prices(chip, figures, rent)
    return Plan("serve", title, figures, _lines(chip, figures, rent), memory)


def _model_figures(config: Model, service: Service) -> dict[str, Figure]:
    """Parameters, operations of one token written, and bytes of its cache."""
    counted = counts(config)
    made_of = model_figures(config, counted)
    latent = config.is_latent
    keys = service.context if config.sliding_window is None else min(service.context, config.sliding_window)
    core = Figure(
        "attention_flops", inference.decode_flops(config, service.context) - inference.matrix_flops(config), "FLOP/token",
        f"2 * num_hidden_layers * keys * num_attention_heads * {'(2 * kv_lora_rank + qk_rope_head_dim)' if latent else '2 * head_dim'}",
        (Input("keys", keys, "tokens", "--context", "assumed"),
         *_sizes(config, "num_hidden_layers", "num_attention_heads", *(("kv_lora_rank", "qk_rope_head_dim") if latent else ("head_dim",)))),
    )  # fmt: skip
    multiplied = Input(
        "multiplied_parameters", counted.multiplied_parameters, "parameters", "without embeddings, with the head", "computed"
    )
    flops = inference.decode_flops(config, service.context)
    width = "(kv_lora_rank + qk_rope_head_dim)" if latent else "2 * num_key_value_heads * head_dim"
    sizes = _sizes(config, "num_hidden_layers", *(("kv_lora_rank", "qk_rope_head_dim") if latent else ("num_key_value_heads", "head_dim")))
    return {
        "params_total": made_of["params_total"],
        "params_active": made_of["params_active"],
        "flops_per_token": Figure(
            "flops_per_token", flops, "FLOP/token", "2 * multiplied_parameters + attention_flops", (multiplied, core),
            "Of one token written; training takes three times a forward pass.",
        ),
        "cache_bytes_per_token": Figure(
            "cache_bytes_per_token", inference.cache_bytes_per_token(config), "bytes/token", f"num_hidden_layers * {width} * 2", sizes
        ),
    }  # fmt: skip


def _sizes(config: Model, *names: str) -> tuple[Input, ...]:
    return tuple(Input(name, getattr(config, name), "", "config.json", "disclosed") for name in names)


def _given_rates(given: Throughput) -> dict[str, Figure]:
    def one(name: str, value: float) -> Figure:
        return Figure(name, value, "tokens/s", "published", (Input(f"{name}_published", value, "tokens/s", given.source, given.status),))

    return {name: one(name, value) for name, value in (("prefill_per_node", given.prefill), ("decode_per_node", given.decode))}


def _predicted_rates(config: Model, chip: Chip, service: Service, unit: Unit, prefill_unit: Unit, sequences: float) -> dict[str, Figure]:
    drafts = 1 if service.accepted else 0
    step = inference.decode(config, unit, chip, sequences, service.context, drafts)
    token = inference.prefill(config, prefill_unit, chip, service.prompt, service.found)
    reach = {"prefill": prefill_reach(chip), "decode": decode_reach(chip)}
    load = rates.load()
    least = Input("least_seconds_per_step", step.seconds, "s", f"plan/inference.py, {unit.devices} x {chip.title}", "computed")
    many = Input("requests_per_device", sequences / unit.tensor, "", "--speed, --context", "computed")
    accepted = Input("accepted_guesses", service.accepted, "share", "--mtp", "assumed")
    devices = Input("devices_per_node", chip.devices_per_node, "", chip.title, "disclosed")
    user = Figure(
        "tokens_per_s_per_user",
        reach["decode"].value * ((1 + service.accepted) / step.seconds),
        "tokens/s",
        "(1 + accepted_guesses) * decode_reach / least_seconds_per_step",
        (accepted, reach["decode"], least, Input("longest_part", step.bound_by, "", "plan/inference.py", "computed")),
    )
    decode_rate = Figure(
        "decode_per_node",
        user.value * (sequences / unit.tensor * chip.devices_per_node) * load.value,
        "tokens/s",
        "tokens_per_s_per_user * requests_per_device * devices_per_node * fleet_load",
        (user, many, devices, load),
    )
    prefill_rate = Figure(
        "prefill_per_node",
        reach["prefill"].value * load.value * (chip.devices_per_node / token / (1 - service.found)),
        "tokens/s",
        "devices_per_node * prefill_reach * fleet_load / (least_seconds_per_token * (1 - cache_hits))",
        (
            devices,
            reach["prefill"],
            load,
            Input("least_seconds_per_token", token, "s", f"plan/inference.py, {prefill_unit.devices} x {chip.title}", "computed"),
            Input("cache_hits", service.found, "share", "--cache-hits", "assumed"),
        ),
    )
    return {one.name: one for one in (prefill_rate, decode_rate, user)}


def _fleet(chip: Chip, service: Service, figures: dict[str, Figure], least: int) -> dict[str, Figure]:
    """Nodes of both kinds and their hours: enough for the tokens, and at least the `least` devices that one copy stands on."""
    source = "--input-tokens, --output-tokens"
    asked = {"prefill": ("input_tokens_per_day", service.input_tokens), "decode": ("output_tokens_per_day", service.output_tokens)}
    nodes = {}
    for kind, (name, tokens) in asked.items():
        rate = figures[f"{kind}_per_node"]
        day = Input(name, tokens, "tokens", source, "assumed")
        nodes[f"{kind}_nodes"] = Figure(f"{kind}_nodes", tokens / (86400 * rate.value), "", f"{name} / (86400 * {rate.name})", (day, rate))
    parts = tuple(nodes.values())
    busy = parts[0].value + parts[1].value
    copy = Input("nodes_of_a_copy", least / chip.devices_per_node, "", "one copy stands ready, however few ask", "computed")
    if np.max(samples_of(busy)) < least / chip.devices_per_node:
        nodes["nodes"] = Figure("nodes", least / chip.devices_per_node, "", "nodes_of_a_copy", (copy,))
    elif np.min(samples_of(busy)) < least / chip.devices_per_node:
        most = apply(np.maximum, busy, least / chip.devices_per_node)
        nodes["nodes"] = Figure("nodes", most, "", f"max({BUSY}, nodes_of_a_copy)", (*parts, copy))
    else:
        nodes["nodes"] = Figure("nodes", busy, "", BUSY, parts)
    days = Figure("days", service.days, "days", "given", (Input("days_asked", service.days, "days", "--days", "assumed"),))
    devices = Input("devices_per_node", chip.devices_per_node, "", chip.title, "disclosed")
    hours = nodes["nodes"].value * (chip.devices_per_node * 24 * service.days)
    nodes["gpu_hours"] = Figure("gpu_hours", hours, "GPU-hours", "nodes * devices_per_node * 24 * days", (nodes["nodes"], devices, days))
    return nodes | {"days": days}


def _lines(chip: Chip, figures: dict[str, Figure], rent: Rent) -> tuple[Line, ...]:
    """Hours and money of reading, of writing, and of a copy that waits."""
    devices = Input("devices_per_node", chip.devices_per_node, "", chip.title, "disclosed")
    each = chip.devices_per_node * 24 * figures["days"].value
    busy = [
        Figure(f"{kind}_hours", figures[f"{kind}_nodes"].value * each, "GPU-hours", f"{kind}_nodes * devices_per_node * 24 * days",
               (figures[f"{kind}_nodes"], devices, figures["days"]))
        for kind in ("prefill", "decode")
    ]  # fmt: skip
    lines = [line_of(name, "serve", name, hours, chip, rent) for name, hours in zip(("reading", "writing"), busy, strict=True)]
    if figures["nodes"].formula != BUSY:
        idle = figures["gpu_hours"].value - (busy[0].value + busy[1].value)
        waits = Figure("waiting_hours", idle, "GPU-hours", "gpu_hours - prefill_hours - decode_hours", (figures["gpu_hours"], *busy))
        lines.append(line_of("ready", "serve", "ready", waits, chip, rent))
    return tuple(lines)


def _token_prices(chip: Chip, figures: dict[str, Figure], rent: Rent) -> dict[str, Figure]:
    """What a million tokens cost; where a copy stands idle, its idle hours too."""
    parts = figures["prefill_nodes"], figures["decode_nodes"], figures["nodes"]
    spare = parts[2].value / (parts[0].value + parts[1].value) if parts[2].formula != BUSY else None
    price = rate_of(chip, rent)
    devices = Input("devices_per_node", chip.devices_per_node, "", chip.title, "disclosed")
    prices = {}
    for name, kind in (("usd_per_million_input", "prefill"), ("usd_per_million_output", "decode")):
        rate = figures[f"{kind}_per_node"]
        value = price.value * (chip.devices_per_node * 1e6 / 3600) / rate.value
        formula = f"usd_per_gpu_hour * devices_per_node * 1e6 / (3600 * {rate.name})"
        if spare is None:
            prices[name] = Figure(name, value, "USD", formula, (price, devices, rate))
        else:
            formula += f" * nodes / ({BUSY})"
            prices[name] = Figure(name, value * spare, "USD", formula, (price, devices, rate, parts[2], *parts[:2]))
    return prices


def _decode_unit(config: Model, chip: Chip, service: Service, asked: Unit | None) -> tuple[Unit, float]:
    """The unit that writes most tokens a second on each device at the speed asked for, and its requests a group."""
    drafts, reach = (1 if service.accepted else 0), decode_reach(chip).middle
    best: tuple[float, Unit, float] | None = None
    tried = [asked] if asked else units.candidates(config, chip)
    for unit in tried:
        many = units.speed_limited_batch(config, unit, chip, service.context, service.speed, reach, drafts, service.accepted)
        if many:
            rate = many / unit.tensor / inference.decode(config, unit, chip, many, service.context, drafts).seconds
            if best is None or rate > best[0] * 1.01:
                best = (rate, unit, many)
    if best is None:
        raise _too_slow(config, chip, service, tried)
    return best[1], best[2]


def _least_unit(config: Model, chip: Chip, service: Service) -> Unit:
    """The fewest devices that a copy stands on with one request; asked for where some unit does."""
    return next(unit for unit in units.candidates(config, chip) if inference.most_sequences(config, unit, chip, service.context) >= 1)


def _too_slow(config: Model, chip: Chip, service: Service, tried: list[Unit]) -> UserError:
    """Why no unit will do, and what would."""
    fitting = [unit for unit in tried if inference.most_sequences(config, unit, chip, service.context) >= 1]
    if not fitting:
        needed = units.smallest_unit(config, chip, service.context).devices
        return UserError(
            "The model does not fit on {devices} x {chip} with {context:,.0f} tokens of context; take {needed} or more.",
            devices=tried[0].devices, chip=chip.title, context=service.context, needed=needed,
        )  # fmt: skip
    drafts = 1 if service.accepted else 0
    least = min(inference.decode(config, unit, chip, 1.0, service.context, drafts).seconds for unit in fitting)
    fastest = (1 + service.accepted) * decode_reach(chip).middle / least
    return UserError(
        "No number of {chip} writes {speed:g} tokens a second of this model for each user; one alone gets about {fastest:.0f}, so ask for "
        "--speed {fastest:.0f} or less, or choose a chip with more bandwidth.",
        chip=chip.title, speed=service.speed, fastest=fastest,
    )  # fmt: skip


def _prefill_unit(config: Model, chip: Chip, service: Service, asked: Unit | None) -> Unit:
    """The unit that reads most tokens a second on each device."""
    if asked:
        return asked
    tried = units.candidates(config, chip)
    fitting = [unit for unit in tried if inference.most_sequences(config, unit, chip, service.prompt) >= 1]
    if not fitting:
        raise _too_slow(config, chip, service, tried)
    return min(fitting, key=lambda unit: (inference.prefill(config, unit, chip, service.prompt, service.found), unit.devices))
