"""spoutnik compare: cost against quality, of what was measured and of what was published."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spoutnik.evaluate.figures import Evaluation
    from spoutnik.evaluate.tradeoff import Axis, LeftOut, Point

RESULTS_HELP = "What `spoutnik eval --json` printed, or evaluation.json of a run's eval stage."
PUBLISHED_HELP = "Beside them the published figures for this benchmark, such as MATH-500, marked as such."
AXIS_HELP = "price (of a million output tokens) or cost (of a solved problem, measured models only) [default: cost, if all are measured]."
RATE_HELP = "What a unit of another currency is worth in the plot's, as EUR=1.08; may be given several times."


def compare(
    results: Annotated[list[Path] | None, typer.Argument(metavar="[RESULT.json]...", help=RESULTS_HELP)] = None,
    task: Annotated[str | None, typer.Option(help="The task of the results, where they have several.")] = None,
    published: Annotated[str | None, typer.Option(help=PUBLISHED_HELP)] = None,
    figures: Annotated[Path | None, typer.Option(help="Published figures of your own, in the form of published.toml.")] = None,
    axis: Annotated[str | None, typer.Option(help=AXIS_HELP)] = None,
    currency: Annotated[str, typer.Option(help="The plot's currency.")] = "USD",
    rate: Annotated[list[str] | None, typer.Option(help=RATE_HELP)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it: FILE.svg, or FILE.html with a table of all figures and their sources.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the points as JSON.")] = False,
) -> None:
    """Compare models by cost and quality: a table, and a plot with dates and the frontier."""
    from dataclasses import asdict

    from spoutnik.cli.output import print_json, table
    from spoutnik.errors import UserError
    from spoutnik.evaluate.published import read_published
    from spoutnik.evaluate.tradeoff import AXES, frontier, measured_points, published_points
    from spoutnik.evaluate.tradeoff_plot import Plot, check_name, save

    if plot:
        check_name(plot)
    evaluations = [_read(path) for path in results or []]
    if not evaluations and not published:
        raise UserError("There is nothing to compare; give results of `spoutnik eval --json`, --published BENCHMARK, or both.")
    chosen = _axis(axis, measured_only=not published)
    rates = _rates(rate or [])
    points: list[Point] = []
    left_out: list[LeftOut] = []
    if evaluations:
        task = _task(evaluations, task)
        points, left_out = measured_points(evaluations, task, chosen, currency, rates)
    if published:
        more, without = published_points(read_published(figures), published, currency, rates)
        points, left_out = points + more, left_out + without
    if not points:
        reasons = "; ".join(f"{one.model}: {one.reason}" for one in left_out)
        raise UserError(f"No model has both a score and a cost ({reasons}).")
    title = "; ".join(part for part in (evaluations and f"{task}, measured", published and f"{published}, published") if part)
    if plot:
        save(plot, [Plot(points, left_out, title, chosen, currency)])
    best = {id(point) for origin in (True, False) for point in frontier([p for p in points if (p.origin == "measured") == origin])}
    if as_json:
        print_json(
            {"title": title, "axis": chosen, "currency": currency, "left_out": [asdict(one) for one in left_out],
             "points": [{**asdict(point), "frontier": id(point) in best} for point in points]}
        )  # fmt: skip
        return
    heads = ["model", "date", "score", f"{currency} for {AXES[chosen]}", "origin", "on the frontier"]
    rows = [
        [point.model, point.date, f"{point.score:.1%}", f"{point.cost:.4g}", point.by, "yes" if id(point) in best else ""]
        for point in sorted(points, key=lambda point: -point.score)
    ]
    print(f"{title}: {len(best)} of {len(points)} models are not beaten by a cheaper one.\n{table([heads, *rows])}")
    for one in left_out:
        print(f"Without a point: {one.model}, {one.reason}.")
    if plot:
        print(f"\nPlot  {plot}")


def _read(path: Path) -> "Evaluation":
    from pydantic import ValidationError

    from spoutnik.errors import UserError
    from spoutnik.evaluate.figures import Evaluation

    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give what `spoutnik eval --json` printed.") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(f"{path} holds no results: {place}: {fault['msg']}; give what `spoutnik eval --json` printed.") from None


def _axis(axis: str | None, measured_only: bool) -> "Axis":
    from spoutnik.errors import UserError

    if axis not in (None, "price", "cost"):
        raise UserError(f"--axis is {axis!r}; it must be price or cost.")
    if axis == "cost" and not measured_only:
        raise UserError("What published models took for a solved problem is not known; leave --published out, or take --axis price.")
    return "price" if axis == "price" or not measured_only else "cost"


def _task(evaluations: "list[Evaluation]", task: str | None) -> str:
    from spoutnik.errors import UserError
    from spoutnik.evaluate.tradeoff import tasks_of

    known = tasks_of(evaluations)
    if task is None and len(known) == 1:
        return known[0]
    if task not in known:
        found = f"no results on {task!r}" if task else f"results on {len(known)} tasks"
        raise UserError(f"The files hold {found}; choose one with --task: {', '.join(map(repr, known)) or 'there is none'}.")
    return task


def _rates(pairs: list[str]) -> dict[str, float]:
    from spoutnik.cli.output import task_options
    from spoutnik.errors import UserError

    rates = task_options(pairs, "--rate", "EUR=1.08")
    for name, value in rates.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise UserError(f"--rate {name} is {value!r}; give a number above 0, as in --rate EUR=1.08.")
    return rates
