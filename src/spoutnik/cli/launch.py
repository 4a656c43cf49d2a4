"""spoutnik launch: a whole recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.recipe import Recipe
    from spoutnik.run.directory import RunDirectory

RECIPE_HELP = "A TOML file, or the name of a recipe that ships with Spoutnik, such as sputnik."
DATA_HELP = "A path that the recipe takes, such as train=train.jsonl; may be repeated."
LONG_MINUTES = 3
"""A recipe that plans for less is carried without measuring the machine first."""
OUT_HELP = "The run's folder [default: runs/NAME]. The same command on the same folder goes on where it stopped."


def launch(
    recipe: Annotated[str, typer.Argument(help=RECIPE_HELP)],
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Every stage in seconds: shows that all works, not that anything is learnt.")
    ] = False,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="NAME=PATH")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say whether it can run, and in how much memory and disk; run nothing.")
    ] = False,
    memory: Annotated[float | None, typer.Option(help="With --dry-run: as if on an accelerator with so many GiB.", min=0.1)] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="With --dry-run: the config.json of a model that is not here.", metavar="NAME=PATH")
    ] = None,
    save_every: Annotated[float, typer.Option(help="Seconds between saved states.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print where everything is as JSON.")] = False,
) -> None:
    """Run a recipe: every stage in turn, going on where an earlier call stopped."""
    import spoutnik.recipe as recipes
    from spoutnik.cli.output import data_paths

    chosen = recipes.load_recipe(recipe, data_paths(data or []))
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    if smoke:
        chosen = recipes.smoke(chosen)
    out = out or Path("runs") / chosen.name
    if dry_run:
        print_rehearsal(chosen, out, config or [], memory, as_json)
        return
    if memory is not None or config:
        raise UserError("--memory and --config only say something with --dry-run; add it or leave them out.")
    directory = carry(chosen, out, str(recipes.find_recipe(recipe)), save_every=save_every)
    print_results(chosen, directory, as_json)


def carry(recipe: "Recipe", out: Path, origin: str, only: str | None = None, save_every: float = 60.0) -> "RunDirectory":
    """Runs a recipe; after Ctrl-C says how to go on and exits with 130."""
    import sys

    from spoutnik.pipeline import run_recipe

    print(f"{recipe.name}: {only or f'{len(recipe.stages)} stages'} in {out}", file=sys.stderr)
    expected = foresee(recipe, out, only)
    try:
        return run_recipe(recipe, out, origin, only=only, save_every_s=save_every, expected=expected)
    except KeyboardInterrupt:
        print(f"\nStopped. Everything up to here is saved in {out}; run the same command again to go on.", file=sys.stderr)
        raise typer.Exit(130) from None


def foresee(recipe: "Recipe", out: Path, only: str | None) -> dict[str, dict[str, float]]:
    """Says how long the stages that are not finished will take here, and returns it by stage. UserError if one needs too much memory.

    A recipe of a few minutes is worth no measuring of a machine that was not measured before. Accelerators are not predicted.
    """
    import sys

    from spoutnik.cli.output import table
    from spoutnik.cli.plan_machine import is_measured, probe
    from spoutnik.cli.plan_recipe import rows
    from spoutnik.device import HOST, computing_device
    from spoutnik.pipeline import planned_minutes, wanted
    from spoutnik.plan.laptop import fitted
    from spoutnik.plan.speech import speech
    from spoutnik.rehearsal.forecast import forecast
    from spoutnik.run.directory import RunDirectory

    words = speech("en")
    pending = [stage for stage in wanted(recipe, only) if not RunDirectory(out).is_done(stage.name)]
    long = planned_minutes(pending) >= LONG_MINUTES
    if not (long or is_measured()) or computing_device().type != HOST:
        return {}
    try:
        found = forecast(recipe, pending, probe(), fitted(), memory=long)
    except (UserError, OSError):
        return {}  # what is missing is said, with its place, by who checks the recipe or reads the file
    if found.faults:
        raise UserError(f"{found.sentence(words)} Lower batch_size, micro_batch_tokens or max_new_tokens, or take a smaller model.")
    print(found.sentence(words), file=sys.stderr)
    if long:
        print(table(rows(found, words)), end="\n\n", file=sys.stderr)
    return found.expected


def print_rehearsal(recipe: "Recipe", out: Path, configs: list[str], memory: float | None, as_json: bool) -> None:
    """Says whether a recipe can run, and exits with 1 if it cannot."""
    from dataclasses import asdict

    from spoutnik.cli.output import print_json, table
    from spoutnik.rehearsal.answer import rehearse, rows
    from spoutnik.run.machine import GIB

    given: dict[str, Path] = {}
    for pair in configs:
        name, separator, path = pair.partition("=")
        if not separator or not Path(path).exists():
            raise UserError(f"--config {pair!r} is no NAME=PATH with a path that exists; give a model's name and its config.json.")
        given[name] = Path(path)
    answer = rehearse(recipe, out, given, int(memory * GIB) if memory is not None else None)
    if as_json:
        print_json({"fits": not answer.faults, "answer": answer.sentence, **asdict(answer)})
    else:
        print(answer.sentence, end="\n\n")
        print(table(rows(answer)))
        for sentence in answer.fetched:
            print(f"\n{sentence}")
    if answer.faults:
        raise typer.Exit(1)


def print_results(recipe: "Recipe", directory: "RunDirectory", as_json: bool) -> None:
    """Says where the report, checkpoints and stored distributions are, and how to chat."""
    from spoutnik.cli.output import print_json, program
    from spoutnik.run.record import read
    from spoutnik.run.summary import best_checkpoint

    made = {stage.name: directory.checkpoint(stage.name) for stage in recipe.stages if directory.checkpoint(stage.name).is_dir()}
    best = best_checkpoint(read(directory.record_path), list(made))
    report = directory.report_path if directory.report_path.exists() else None
    stored = {
        stage.name: directory.stage(stage.name) for stage in recipe.stages if stage.kind == "logits" and directory.is_done(stage.name)
    }
    if as_json:
        print_json({"report": report, "checkpoints": made, "distributions": stored, "best": best})
        return
    if report:
        print(f"\nReport       {report}")
    if made:
        print("Checkpoints  " + "\n             ".join(str(path) for path in made.values()))
    if stored:
        print("Stored       " + "\n             ".join(str(path) for path in stored.values()))
    if best:
        print(f"Chat with    {program()} chat {made[best]}")
