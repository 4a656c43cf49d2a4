"""spoutnik plan rl: what reinforcement learning takes, rollouts and updates apart."""

from typing import Annotated

import typer

from spoutnik.cli.plan_output import Chip, Compare, Drawn, Html, Json, Lang, Location, Measured, Output, Price, Why, show


def rl(
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a config.json or its folder.")],
    devices: Annotated[str, typer.Option(help="Devices that sample and train in turns.")],
    steps: Annotated[str, typer.Option(help="Updates.")],
    length: Annotated[str, typer.Option(help="Mean tokens of an answer over the whole run.")],
    prompts: Annotated[str, typer.Option(help="Questions of a step.")] = "32",
    group: Annotated[str, typer.Option(help="Answers to each question.")] = "16",
    max_length: Annotated[str, typer.Option(help="Tokens after which an answer is cut.")] = "32768",
    prompt: Annotated[str, typer.Option(help="Mean tokens of a question.")] = "300",
    minibatches: Annotated[str, typer.Option(help="Updates that share one rollout.")] = "1",
    reference: Annotated[bool, typer.Option(help="Whether a reference model reads every answer.")] = True,
    old: Annotated[bool, typer.Option(help="Whether the sampling policy reads every answer once more.")] = True,
    chip: Chip = "h800-sxm",
    price: Price = None,
    location: Location = "world",
    measured: Measured = None,
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    compare: Compare = None,
    lang: Lang = None,
) -> None:
    """Reinforcement learning: answers sampled, then learned from, step by step."""
    options = {
        "model": model, "devices": devices, "steps": steps, "length": length, "prompts": prompts, "group": group, "max_length": max_length,
        "prompt": prompt, "minibatches": minibatches, "reference": reference, "old": old, "chip": chip, "price": price,
        "location": location, "measured": measured,
    }  # fmt: skip
    show(_plan, Output(as_json, html, why, compare, lang, options))


def _plan(
    model: str,
    devices: str,
    steps: str,
    length: str,
    prompts: str,
    group: str,
    max_length: str,
    prompt: str,
    minibatches: str,
    reference: bool,
    old: bool,
    chip: str,
    price: str | None,
    location: str,
    measured: str | None,
) -> Drawn:
    from spoutnik.plan.amount import amount, count
    from spoutnik.plan.bill import rent_of
    from spoutnik.plan.chips import chip as chip_named
    from spoutnik.plan.models import open_model, title_of
    from spoutnik.plan.reinforcement import Campaign, plan_reinforcement

    device = chip_named(chip)
    campaign = Campaign(
        count(steps, "--steps"), count(prompts, "--prompts"), count(group, "--group"), amount(length, "--length"),
        amount(max_length, "--max-length"), amount(prompt, "--prompt"), count(minibatches, "--minibatches"), reference, old,
    )  # fmt: skip
    title = f"{title_of(model)}, {device.title}"
    rent = rent_of(price, location, measured)
    return Drawn(plan_reinforcement(open_model(model), title, device, count(devices, "--devices"), campaign, rent), device.memory_gb * 1e9)
