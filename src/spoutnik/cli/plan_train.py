"""spoutnik plan train: what pretraining takes on so many devices, with the layout that suits them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.plan_output import Chip, Compare, Drawn, Html, Json, Lang, Location, Measured, Output, Price, Why, show

if TYPE_CHECKING:
    from spoutnik.plan.schedule import Timeline
    from spoutnik.plan.training import TrainingPlan

DRAWN = 2
"""Microbatches for each device of a pipeline that are drawn at most; what follows repeats itself."""


Size = Annotated[int | None, typer.Option(min=0)]


def train(
    tokens: Annotated[str, typer.Option(help="Tokens to train on, as in 14.8T.")],
    devices: Annotated[str, typer.Option("--count", "--devices", help="How many chips.")],
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="As --model.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A name of the catalogue, or a config.json or its folder; sizes below change it, or make one.")
    ] = None,
    hidden_size: Size = None,
    intermediate_size: Size = None,
    num_hidden_layers: Size = None,
    num_attention_heads: Size = None,
    num_key_value_heads: Size = None,
    vocab_size: Size = None,
    kv_lora_rank: Size = None,
    q_lora_rank: Size = None,
    n_routed_experts: Size = None,
    n_shared_experts: Size = None,
    num_experts_per_tok: Size = None,
    moe_intermediate_size: Size = None,
    first_k_dense_replace: Size = None,
    chip: Chip = "h100-sxm",
    sequence_length: Annotated[str, typer.Option(help="Tokens in a sequence.")] = "4096",
    batch_tokens: Annotated[
        str | None, typer.Option(help="Tokens of one step; else the model's own where known, or what is usual for the size.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="bf16, fp8, or fp8-kept (activations kept in FP8, as DeepSeek-V3 does); else the model's own, or bf16."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="'KEY=VALUE ...'", help="Fields of the layout to keep, as in 'pipeline=16 expert=64 schedule=dualpipe'."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="USD; a run that cannot be had for so much is refused.")] = None,
    price: Price = None,
    location: Location = "world",
    measured: Measured = None,
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    compare: Compare = None,
    lang: Lang = None,
) -> None:
    """Pretraining: hours, days, money, energy and memory, with the best layout that fits."""
    from spoutnik.errors import UserError
    from spoutnik.plan.speech import language_of, speech

    if name and model and name != model:
        raise UserError("The model is {name} and --model is {model}; name one of them.", name=name, model=model)
    words = speech(language_of(lang))
    flags = {
        "hidden_size": hidden_size, "intermediate_size": intermediate_size, "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads, "num_key_value_heads": num_key_value_heads, "vocab_size": vocab_size,
        "kv_lora_rank": kv_lora_rank, "q_lora_rank": q_lora_rank, "n_routed_experts": n_routed_experts,
        "n_shared_experts": n_shared_experts, "num_experts_per_tok": num_experts_per_tok,
        "moe_intermediate_size": moe_intermediate_size, "first_k_dense_replace": first_k_dense_replace,
    }  # fmt: skip

    def plan(**options: str | None) -> Drawn:
        from spoutnik.plan.amount import amount, count
        from spoutnik.plan.bill import rent_of
        from spoutnik.plan.chips import chip as chip_named
        from spoutnik.plan.models import open_model, title_of, trained_as
        from spoutnik.plan.training import plan_training

        given = {key: value for key, value in options.items() if value is not None}
        device, many, total = chip_named(given["chip"]), count(given["devices"], "--count"), amount(given["tokens"], "--tokens")
        called = given.get("model")
        what = title_of(called, flags) if called else words("head.by_sizes")
        usual = {"precision": "bf16", "batch_tokens": None, **trained_as(called, device)}
        title = f"{what}, {words.quantity(total, 'tokens')}, {words.number(many)} x {device.title}"
        made = plan_training(
            open_model(called, flags),
            total,
            device,
            many,
            _layout(given.get("layout")),
            sequence_length=count(given["sequence_length"], "--sequence-length"),
            batch_tokens=count(given["batch_tokens"], "--batch-tokens") if "batch_tokens" in given else usual["batch_tokens"],
            precision=given.get("precision", usual["precision"]),
            rent=rent_of(given.get("price"), given["location"], given.get("measured")),
            budget_usd=amount(given["budget"], "--budget") if "budget" in given else None,
            title=title,
        )
        return Drawn(made, device.memory_gb * 1e9, _timeline(made))

    options = {
        "model": model or name, "tokens": tokens, "devices": devices, "chip": chip, "sequence_length": sequence_length,
        "batch_tokens": batch_tokens, "precision": precision, "layout": layout, "budget": budget, "price": price, "location": location,
        "measured": measured,
    }  # fmt: skip
    show(plan, Output(as_json, html, why, compare, lang, options))


def _layout(text: str | None) -> dict[str, Any] | None:
    """'pipeline=16 schedule=dualpipe' as a table."""
    from spoutnik.errors import UserError
    from spoutnik.plan.amount import switch
    from spoutnik.plan.layout import KINDS

    if text is None:
        return None
    table: dict[str, Any] = {}
    for pair in text.replace(",", " ").split():
        key, separator, value = pair.partition("=")
        if not separator or key not in KINDS:
            raise UserError(
                "--layout {pair!r} is no field of a layout; write KEY=VALUE with one of {known}.", pair=pair, known=", ".join(KINDS)
            )
        if KINDS[key] is int and not value.isdigit():
            raise UserError("--layout {pair!r} needs a whole number, as in {key}=8.", pair=pair, key=key)
        table[key] = int(value) if KINDS[key] is int else switch(value, f"--layout {key}") if KINDS[key] is bool else value
    return table


def _timeline(made: "TrainingPlan") -> "Timeline | None":
    """A step of the plan's pipeline with as many microbatches as can be told apart."""
    from spoutnik.plan.schedule import generate, simulate

    layout, step = made.layout, made.step
    if layout is None or step is None or layout.pipeline == 1:
        return None
    few = min(layout.microbatches, DRAWN * layout.pipeline)
    return simulate(generate(layout.schedule, layout.pipeline, few, layout.chunks), step.durations)
