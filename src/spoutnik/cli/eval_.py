"""spoutnik eval: one model on one task's held-out problems."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, a GGUF file, or a model's name.")],
    task: Annotated[str, typer.Option(help="The task; see `spoutnik tasks list`.")],
    option: Annotated[list[str] | None, typer.Option(help="An option of the task, as key=value; may be given several times.")] = None,
    problems: Annotated[int, typer.Option(help="How many problems.")] = 200,
    split: Annotated[str, typer.Option(help="held-out or train.")] = "held-out",
    samples: Annotated[int, typer.Option(help="Samples per problem; more than one needs a temperature.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Evaluate a model on a task: accuracy with its 95 % interval."""
    import tempfile

    from spoutnik.cli.launch import carry
    from spoutnik.cli.output import print_json, task_options
    from spoutnik.recipe import parse_recipe
    from spoutnik.run.record import read

    stage = {
        "kind": "eval",
        "name": "eval",
        "models": [model],
        "tasks": [{**task_options(option or []), "name": task, "split": split, "problems": problems}],
        "samples_per_problem": samples,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
    }
    recipe = parse_recipe({"name": "eval", "seed": seed, "stage": [stage]}, "spoutnik eval")
    with tempfile.TemporaryDirectory(prefix="spoutnik-eval-") as folder:
        directory = carry(recipe, Path(folder), "spoutnik eval")
        figures = [event for event in read(directory.record_path) if event["event"] == "eval"]
    if as_json:
        print_json(figures)
        return
    for figure in figures:
        low, high = figure["low"], figure["high"]
        print(f"{figure['task']}: {figure['accuracy']:.1%} correct (95 % interval {low:.1%} to {high:.1%}, n = {figure['n']})")
