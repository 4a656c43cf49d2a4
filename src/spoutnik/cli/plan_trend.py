"""spoutnik plan trend: what training costs as years pass, and the press's numbers on that curve."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.plan_output import Html, Json, Lang, Why, explain, write

if TYPE_CHECKING:
    from spoutnik.plan.figure import Figure


def trend(
    cost: Annotated[str | None, typer.Option(help="USD that a run cost, as in 80M: what it costs at another date.")] = None,
    on: Annotated[str, typer.Option("--from", metavar="MONTH", help="When it cost that, as in 2022-08.")] = "2022-08",
    to: Annotated[str, typer.Option("--to", metavar="MONTH", help="When it is asked for.")] = "2024-12",
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    lang: Lang = None,
) -> None:
    """The decline of training cost (1.68, 3, 4 times a year), "80 M then, 5.5 M now", and what a final run leaves out."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.figure import find_figure
    from spoutnik.plan.speech import language_of, speech
    from spoutnik.plan.trend_page import page, text

    words, asked = speech(language_of(lang)), _asked(cost, on, to)
    if html:
        write(html, page(words, asked))
    if why:
        explain(find_figure(why, _all(asked)), as_json, words)
    elif as_json:
        print_json(_json(asked))
    else:
        print(text(words, asked))


def _asked(cost: str | None, on: str, to: str) -> "dict[str, Figure]":
    """The cost that was asked for at the other date, by each decline."""
    from spoutnik.errors import Phrase, UserError
    from spoutnik.plan.amount import amount
    from spoutnik.plan.figure import Input
    from spoutnik.plan.trend import declines, later, year_of

    if cost is None:
        return {}
    value = amount(cost.lower().removesuffix("usd"), "--cost")
    if not value > 0:
        raise UserError("--cost {cost} must be positive; give USD, as in 80M.", cost=cost)
    given = Input("cost", value, "USD", Phrase("--cost, of {on}", on=on), "assumed")
    return {decline.name: later(given, year_of(to) - year_of(on), decline) for decline in declines()}


def _all(asked: "dict[str, Figure]") -> "list[Figure]":
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.trend import comparisons, declines, months_behind, programmes, run

    found = list(asked.values())
    for one in comparisons():
        for figure in (*one.figures.values(), *one.expected.values()):
            found.append(Figure(f"{one.older.name}.{figure.name}", figure.value, figure.unit, figure.formula, figure.inputs, figure.note))
    found += list(programmes(run("deepseek-v3").usd).values())
    return found + [months_behind(run("sonnet-3_5").usd, decline) for decline in declines()]


def _json(asked: "dict[str, Figure]") -> dict[str, Any]:
    from spoutnik.plan.trend import comparisons, declines, months_behind, programmes, run

    def numbers(figures: "dict[str, Figure]") -> dict[str, Any]:
        return {name: figure.to_json() for name, figure in figures.items()}

    pairs = [
        {"older": one.older.name, "newer": one.newer.name, "status": [one.older.usd.status, one.newer.usd.status]}
        | numbers(one.figures) | {"expected": numbers(one.expected)}
        for one in comparisons()
    ]  # fmt: skip
    return {
        "comparisons": pairs,
        "programmes": numbers(programmes(run("deepseek-v3").usd)),
        "seven_to_ten_months_behind": {decline.name: months_behind(run("sonnet-3_5").usd, decline).to_json() for decline in declines()},
        "asked": numbers(asked),
    }
