"""spoutnik plan h20: what a laboratory with only H20 could do."""

from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.cli.plan_output import Json, Lang, Why, explain

if TYPE_CHECKING:
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.h20 import Laboratory
    from spoutnik.plan.speech import Speech


def h20(
    model: Annotated[str, typer.Option(help="The model to train and to serve.")] = "deepseek-v3",
    dense: Annotated[str, typer.Option(help="A model with plain attention, served beside it.")] = "llama-3.1-70b",
    tokens: Annotated[str, typer.Option(help="Tokens to train on.")] = "14.8T",
    devices: Annotated[str, typer.Option(help="Chips of either kind.")] = "2048",
    batch_tokens: Annotated[
        str, typer.Option(help="Tokens of a training step; DeepSeek-V3's were 15,360 sequences of 4,096.")
    ] = "62914560",
    days: Annotated[str, typer.Option(help="How long the laboratory may train a model of its own.")] = "90",
    chip: Annotated[str, typer.Option(help="The laboratory's chip.")] = "h20",
    beside: Annotated[str, typer.Option(help="The chip that it cannot have.")] = "h800-sxm",
    as_json: Json = False,
    why: Why = None,
    lang: Lang = None,
) -> None:
    """What a laboratory with only H20 could do: training is bound by operations, answering mostly by memory."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.amount import amount, count
    from spoutnik.plan.chips import chip as chip_named
    from spoutnik.plan.figure import find_figure
    from spoutnik.plan.h20 import laboratory
    from spoutnik.plan.models import open_model, title_of
    from spoutnik.plan.speech import language_of, speech

    words, many = speech(language_of(lang)), count(devices, "--devices")
    found = laboratory(
        open_model(model), open_model(dense), amount(tokens, "--tokens"), chip_named(chip), chip_named(beside), many,
        amount(days, "--days"), count(batch_tokens, "--batch-tokens"),
    )  # fmt: skip
    if why:
        explain(find_figure(why, list(found.figures().values())), as_json, words)
    elif as_json:
        print_json({name: figure.to_json() for name, figure in found.figures().items()})
    else:
        print(_text(found, title_of(model), title_of(dense), words))


def _text(found: "Laboratory", model: str, dense: str, words: "Speech") -> str:
    from spoutnik.plan.answer import columns, in_brackets
    from spoutnik.plan.uncertain import middle

    def said(figure: "Figure") -> str:
        unit = "USD" if figure.unit == "USD" else ""
        return words.quantity(figure.value, unit) + in_brackets(figure.value, unit, words)

    rows = [["", found.first.title, found.second.title, words("h20.ratio")]]
    for row in found.rows:
        name = row.name
        ratio = words.number(float(f"{middle(row.ratio):.2g}"), exact=False)
        rows.append(
            [words(f"h20.{name}", model=model, dense=dense, count=words.number(found.count)), said(row.first), said(row.second), ratio]
        )
    times, one = middle(found.row("training_hours").ratio), middle(found.row("one_reader").ratio)
    lines = [
        words(
            "h20.title", first=found.first.title, second=found.second.title, model=model, times=words.number(round(times, 1)),
            faster=words.number(round(one, 2)), many=words.number(round(middle(found.row("many").ratio), 2)),
        ),
        "", columns(rows, right=(3,)), "",
        words("h20.needed", count=words.quantity(found.needed.value, ""), first=found.first.title, beside=words.number(found.count),
              second=found.second.title, model=model),
        words("h20.left", count=words.number(found.count), days=words.number(found.days), size=said(found.best_size),
              tokens=said(found.best_tokens)),
        words("h20.reason"), words("h20.measured"),
    ]  # fmt: skip
    return "\n".join(lines)
