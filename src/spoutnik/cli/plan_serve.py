"""spoutnik plan serve: nodes, money and energy of a service, and what a million tokens cost."""

from typing import Annotated

import typer

from spoutnik.cli.plan_output import Chip, Compare, Drawn, Html, Json, Lang, Location, Measured, Output, Price, Why, show

ANSWERED = 904.0
"""Tokens of an answer that lie in the cache beside its prompt on average: with the usual prompt about DeepSeek's 4,989 in all."""


def serve(
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a config.json or its folder.")],
    input_tokens: Annotated[str, typer.Option(help="Tokens read a day, those found in a cache included, as in 608B.")],
    output_tokens: Annotated[str, typer.Option(help="Tokens written a day, as in 168B.")],
    chip: Chip = "h800-sxm",
    cache_hits: Annotated[str, typer.Option(help="Share of the input whose keys and values lie in a cache.")] = "0",
    prompt: Annotated[str, typer.Option(help="Mean tokens of a prompt.")] = "4096",
    context: Annotated[
        str | None, typer.Option(help="Mean tokens of a request's cache while it is answered; else 904 more than the prompt.")
    ] = None,
    speed: Annotated[str, typer.Option(help="Tokens a second that each user gets at least.")] = "20",
    days: Annotated[str, typer.Option(help="How long the service runs.")] = "30",
    mtp: Annotated[str, typer.Option(help="Share of guesses of a multi-token prediction layer that count; 0: not used.")] = "0",
    prefill_per_node: Annotated[
        str | None, typer.Option(help="Tokens a node reads a second, where that was measured; else predicted.")
    ] = None,
    decode_per_node: Annotated[str | None, typer.Option(help="Tokens a node writes a second, where that was measured.")] = None,
    devices: Annotated[str | None, typer.Option(help="Devices that share one copy of the model; else the best number is sought.")] = None,
    price: Price = None,
    location: Location = "world",
    measured: Measured = None,
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    compare: Compare = None,
    lang: Lang = None,
) -> None:
    """A service: nodes that read prompts and nodes that write answers, per day's tokens, at a speed for each user."""
    options = {
        "model": model, "input_tokens": input_tokens, "output_tokens": output_tokens, "chip": chip, "cache_hits": cache_hits,
        "prompt": prompt, "context": context, "speed": speed, "days": days, "mtp": mtp, "prefill_per_node": prefill_per_node,
        "decode_per_node": decode_per_node, "devices": devices, "price": price, "location": location, "measured": measured,
    }  # fmt: skip
    show(_plan, Output(as_json, html, why, compare, lang, options))


def _plan(
    model: str,
    input_tokens: str,
    output_tokens: str,
    chip: str,
    cache_hits: str,
    prompt: str,
    context: str | None,
    speed: str,
    days: str,
    mtp: str,
    prefill_per_node: str | None,
    decode_per_node: str | None,
    devices: str | None,
    price: str | None,
    location: str,
    measured: str | None,
) -> Drawn:
    from spoutnik.errors import UserError
    from spoutnik.plan.amount import amount, count
    from spoutnik.plan.bill import rent_of
    from spoutnik.plan.chips import chip as chip_named
    from spoutnik.plan.models import open_model, title_of
    from spoutnik.plan.serving import Service, Throughput, plan_serving
    from spoutnik.plan.units import unit_asked

    if (prefill_per_node is None) != (decode_per_node is None):
        raise UserError("--prefill-per-node and --decode-per-node belong together; give both, or neither to have both predicted.")
    config, device = open_model(model), chip_named(chip)
    asked = amount(prompt, "--prompt")
    cached = amount(context, "--context") if context is not None else asked + ANSWERED
    service = Service(
        amount(input_tokens, "--input-tokens"), amount(output_tokens, "--output-tokens"), amount(cache_hits, "--cache-hits"),
        asked, cached, amount(speed, "--speed"), amount(days, "--days"), amount(mtp, "--mtp"),
    )  # fmt: skip
    given = None
    if prefill_per_node is not None and decode_per_node is not None:
        rates = amount(prefill_per_node, "--prefill-per-node"), amount(decode_per_node, "--decode-per-node")
        given = Throughput(*rates, "--prefill-per-node, --decode-per-node", "claimed")
    unit = unit_asked(config, device, count(devices, "--devices")) if devices is not None else None
    plan = plan_serving(config, f"{title_of(model)}, {device.title}", device, service, rent_of(price, location, measured), given, unit)
    return Drawn(plan, device.memory_gb * 1e9)
