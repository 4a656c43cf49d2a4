"""spoutnik plan recipe: how long a recipe takes on this machine, and how right that was."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.cli.launch import DATA_HELP, RECIPE_HELP

if TYPE_CHECKING:
    from spoutnik.rehearsal.forecast import Forecast


def recipe(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)],
    against: Annotated[Path | None, typer.Option(help="A finished run of it: print what it took, too.", metavar="RUN")] = None,
    why: Annotated[str | None, typer.Option(help="Print what a stage's time is made of.", metavar="STAGE")] = None,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="NAME=PATH")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Of the recipe's smoke form.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Predict the time and memory of each stage on this machine; with --against compare them with what a run took."""
    import spoutnik.recipe as recipes
    from spoutnik.cli.output import data_paths, print_json, table
    from spoutnik.cli.plan_machine import probe
    from spoutnik.errors import UserError
    from spoutnik.plan.answer import why as reasons
    from spoutnik.plan.laptop import fitted
    from spoutnik.plan.speech import speech
    from spoutnik.rehearsal.against import compare
    from spoutnik.rehearsal.forecast import forecast

    chosen = recipes.load_recipe(name, data_paths(data or []))
    chosen = recipes.smoke(chosen) if smoke else chosen
    if against is not None:
        comparison = compare(chosen, against, probe(), fitted())
        if as_json:
            print_json(comparison.to_json())
            return
        print(comparison.sentence, end="\n\n")
        print(table(comparison.rows()))
        if comparison.left_out:
            print(f"\nNot compared, since they were resumed, or not finished: {', '.join(comparison.left_out)}.")
        return
    found = forecast(chosen, chosen.stages, probe(), fitted(), memory=why is None)
    if why is not None:
        explained = next((stage for stage in found.stages if stage.work.name == why), None)
        if explained is None or explained.seconds is None:
            raise UserError(f"{chosen.name} has no stage {why!r} whose time is predicted; it has: {', '.join(found.expected)}.")
        print(reasons(explained.seconds, speech("en")))
    elif as_json:
        print_json({"answer": found.sentence, "total": found.total.to_dict(), "stages": found.expected, "unknown": found.unknown})
    else:
        print(found.sentence, end="\n\n")
        print(table(rows(found)))


def rows(found: "Forecast") -> list[list[str]]:
    """A table of the stages, its heading first."""
    from spoutnik.run.machine import GIB
    from spoutnik.run.progress import duration

    table = [["stage", "kind", "time", "8 of 10", "memory"]]
    for stage in found.stages:
        seconds, memory = stage.range, f"{stage.memory / GIB:.1f} GiB" if stage.memory else ""
        times = [duration(seconds.p50), f"{duration(seconds.p10)} to {duration(seconds.p90)}"] if seconds else ["?", stage.work.unknown]
        table.append([stage.work.name, stage.work.kind, *times, memory])
    return table
