"""spoutnik plan programme: everything that it took to make a model and let it answer, as one sum."""

from typing import Annotated

import typer

from spoutnik.cli.plan_output import Compare, Drawn, Html, Json, Lang, Location, Output, Price, Why, show


def programme(
    name: Annotated[str, typer.Argument(help="A TOML file of lines, or deepseek-v3-r1.")],
    predict: Annotated[bool, typer.Option("--predict", help="Set aside what the lines disclose and work all of them out.")] = False,
    price: Price = None,
    location: Location = "world",
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    compare: Compare = None,
    lang: Lang = None,
) -> None:
    """Pretraining, fine-tuning, reinforcement learning, distillation and months of answers, added up."""
    from spoutnik.plan.speech import language_of

    language = language_of(lang)

    def plan(name: str, predict: bool, price: str | None, location: str) -> Drawn:
        from spoutnik.plan.amount import amount
        from spoutnik.plan.programme import plan_programme
        from spoutnik.plan.programme_file import read_programme

        return Drawn(plan_programme(read_programme(name, language), predict, None if price is None else amount(price, "--price"), location))

    show(plan, Output(as_json, html, why, compare, lang, {"name": name, "predict": predict, "price": price, "location": location}))
