"""spoutnik eval: models here and over the network, side by side on the same problems."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.run import PRICE_HELP
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.evaluate.figures import Evaluation
    from spoutnik.recipe import Recipe

MODELS_HELP = "A checkpoint's folder, a GGUF file, a model's name; or FILE.toml#NAME, a [[teacher]] table for a model over the network."
OPTION_HELP = "An option of the tasks, as key=value, or of one of several, as TASK.key=value; may be given several times."
OUT_HELP = "Keep all answers here; the same command, or one with more models, tasks or problems, goes on with what is missing."
AGAINST_HELP = "Look for the problems in these training data, too: a file, a folder or a run; may be given several times."
PLOT_HELP = "Draw cost against quality: FILE.svg, or FILE.html with the figures, for several tasks, too; local models need --price."
STAGE = "eval"


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODELS_HELP)],
    task: Annotated[list[str], typer.Option(help="A task, see `spoutnik tasks list`; may be given several times.")],
    option: Annotated[list[str] | None, typer.Option(help=OPTION_HELP)] = None,
    problems: Annotated[int, typer.Option(help="How many problems of each task.")] = 200,
    split: Annotated[str, typer.Option(help="held-out or train.")] = "held-out",
    samples: Annotated[int, typer.Option(help="Answers to each problem; more than one needs a temperature.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most, its thinking included.")] = 256,
    instruct: Annotated[bool, typer.Option("--instruct", help="Tell local models, too, how to write down their answer.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of what local models sample.")] = 0,
    price: Annotated[list[str] | None, typer.Option(help=PRICE_HELP)] = None,
    against: Annotated[list[str] | None, typer.Option(help=AGAINST_HELP)] = None,
    plot: Annotated[Path | None, typer.Option(help=PLOT_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Evaluate models on tasks: how much each solves, with intervals, tests between them, tokens, cost and energy."""
    import tempfile

    from spoutnik.cli.eval_text import headline, tables
    from spoutnik.cli.output import print_json, task_options
    from spoutnik.evaluate.tradeoff_plot import check_name
    from spoutnik.recipe import parse_recipe

    if plot:
        check_name(plot, len(task))
    teachers, names = _read_models(models)
    stage = {
        "kind": "eval", "name": STAGE, "models": names,
        "tasks": [{**_options_of(name, task, option or []), "name": name, "split": split, "problems": problems} for name in task],
        "samples_per_problem": samples, "temperature": temperature, "max_new_tokens": max_new_tokens, "dtype": dtype, "instruct": instruct,
        **({"against": against} if against else {}),
    }  # fmt: skip
    rates = task_options(price or [], "--price", "kwh=0.30")
    recipe = parse_recipe({"name": STAGE, "seed": seed, "price": rates, "teacher": teachers, "stage": [stage]}, "spoutnik eval")
    with tempfile.TemporaryDirectory(prefix="spoutnik-eval-") as folder:
        evaluation = _carry(recipe, out or Path(folder))
    if plot:
        _plot(evaluation, plot)
    if as_json:
        print_json(evaluation.model_dump())
        return
    print(headline(evaluation))
    print(f"\n{tables(evaluation)}")
    if out:
        print(f"\nAnswers and figures are in {out / 'stages' / STAGE}.")


def _carry(recipe: "Recipe", out: Path) -> "Evaluation":
    """Runs the evaluation, or goes on with one that is there already, whatever it asked: the answers decide what is missing."""
    from spoutnik.cli.launch import carry
    from spoutnik.evaluate.figures import Evaluation
    from spoutnik.run.directory import RunDirectory

    folder = RunDirectory(out).stage(STAGE)
    for name in ("definition.json", "done"):
        (folder / name).unlink(missing_ok=True)
    carry(recipe, out, "spoutnik eval")
    return Evaluation.model_validate_json((folder / "evaluation.json").read_text(encoding="utf-8"))


def _plot(evaluation: "Evaluation", path: Path) -> None:
    """Draws every task that has a model with a score and a cost, and says on stderr what has none."""
    import sys

    from spoutnik.evaluate.tradeoff import measured_points
    from spoutnik.evaluate.tradeoff_plot import Plot, save

    currency = next((result.currency for result in evaluation.results if result.currency), "EUR")
    plots = []
    for task in evaluation.tasks:
        points, left_out = measured_points([evaluation], task.name, "cost", currency, {})
        plots += [Plot(points, left_out, f"{task.name}, measured", "cost", currency)] if points else []
        for one in left_out:
            print(f"Not in the plot of {task.name}: {one.model}, {one.reason}.", file=sys.stderr)
    if plots:
        save(path, plots)


def _read_models(arguments: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The [[teacher]] tables that FILE.toml#NAME arguments mean (all of a file's for FILE.toml), and every model's name in order."""
    tables: list[dict[str, Any]] = []
    names: list[str] = []
    for argument in arguments:
        file, _, name = argument.partition("#")
        if not file.endswith(".toml"):
            names.append(argument)
            continue
        found = _teachers_in(Path(file))
        chosen = [table for table in found if not name or table.get("name") == name]
        if not chosen:
            known = ", ".join(str(table.get("name")) for table in found) or "none"
            raise UserError(f"{file} has no [[teacher]] called {name!r}; it has: {known}.")
        tables += chosen
        names += [str(table.get("name")) for table in chosen]
    return tables, names


def _teachers_in(path: Path) -> list[dict[str, Any]]:
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("teacher")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as TOML ({error}); give a file with a [[teacher]] table for each model.") from None
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path} has no [[teacher]] table; write one for each model over the network.")
    return tables


def _options_of(task: str, tasks: list[str], options: list[str]) -> dict[str, Any]:
    """A task's options: those for all, then its own."""
    from spoutnik.cli.output import task_options

    def meant(option: str) -> str | None:
        return max((name for name in tasks if option.startswith(f"{name}.")), key=len, default=None)

    common = [option for option in options if meant(option) is None]
    own = [option.removeprefix(f"{task}.") for option in options if meant(option) == task]
    return task_options([*common, *own])
