"""spoutnik plan recipe: how long a recipe takes on this machine, and how right that was."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.cli.launch import DATA_HELP, RECIPE_HELP
from spoutnik.cli.plan_output import Lang

if TYPE_CHECKING:
    from spoutnik.plan.speech import Speech
    from spoutnik.rehearsal.forecast import Forecast


def recipe(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)],
    against: Annotated[Path | None, typer.Option(help="A finished run of it: print what it took, too.", metavar="RUN")] = None,
    why: Annotated[str | None, typer.Option(help="Print what a stage's time is made of.", metavar="STAGE")] = None,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="NAME=PATH")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Of the recipe's smoke form.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    lang: Lang = None,
) -> None:
    """Predict the time and memory of each stage on this machine; with --against compare them with what a run took."""
    import spoutnik.recipe as recipes
    from spoutnik.cli.output import data_paths, print_json, table
    from spoutnik.cli.plan_machine import probe
    from spoutnik.errors import UserError
    from spoutnik.plan.answer import why as reasons
    from spoutnik.plan.laptop import fitted
    from spoutnik.plan.speech import language_of, speech
    from spoutnik.rehearsal.against import compare
    from spoutnik.rehearsal.forecast import forecast

    words = speech(language_of(lang))
    chosen = recipes.load_recipe(name, data_paths(data or []))
    chosen = recipes.smoke(chosen) if smoke else chosen
    if against is not None:
        comparison = compare(chosen, against, probe(), fitted())
        if as_json:
            print_json(comparison.to_json())
            return
        print(comparison.sentence(words), end="\n\n")
        print(table(comparison.rows(words)))
        if comparison.left_out:
            print(f"\n{words('recipe.left_out', stages=', '.join(comparison.left_out))}")
        return
    found = forecast(chosen, chosen.stages, probe(), fitted(), memory=why is None)
    if why is not None:
        explained = next((stage for stage in found.stages if stage.work.name == why), None)
        if explained is None or explained.seconds is None:
            raise UserError(
                "{name} has no stage {why!r} whose time is predicted; it has: {expected}.",
                name=chosen.name,
                why=why,
                expected=", ".join(found.expected),
            )
        print(reasons(explained.seconds, words))
    elif as_json:
        english = speech("en")
        answer, unknown = found.sentence(english), found.unknown(english)
        print_json({"answer": answer, "total": found.total.to_dict(), "stages": found.expected, "unknown": unknown})
    else:
        print(found.sentence(words), end="\n\n")
        print(table(rows(found, words)))


def rows(found: "Forecast", words: "Speech") -> list[list[str]]:
    """A table of the stages, its heading first."""
    from spoutnik.run.machine import GIB
    from spoutnik.run.progress import duration

    table = [[words(f"recipe.{name}") for name in ("stage", "kind", "time", "interval", "held")]]
    for stage in found.stages:
        memory = words.quantity(stage.memory / GIB, "GiB", exact=False) if stage.memory else ""
        times = ["?", words.phrase(stage.work.unknown)]
        if (seconds := stage.range) is not None:
            times = [duration(seconds.p50), words("recipe.between", low=duration(seconds.p10), high=duration(seconds.p90))]
        table.append([stage.work.name, stage.work.kind, *times, memory])
    return table
