"""spoutnik tasks: what there is to train and evaluate on."""

from typing import Annotated, Any

import typer

app = typer.Typer(help="List, show and sample the verifiable tasks.", no_args_is_help=True, rich_markup_mode=None)

OPTION_HELP = "An option of the task, as key=value; may be given several times."


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """The names of all tasks."""
    from spoutnik.cli.output import print_json
    from spoutnik.tasks import names

    if as_json:
        print_json(names())
    else:
        print("\n".join(names()))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The task.")],
    option: Annotated[list[str] | None, typer.Option(help=OPTION_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What a task asks, its options with their values, and one problem."""
    from spoutnik.cli.output import print_json, table, task_options
    from spoutnik.tasks import make

    task = make(name, **task_options(option or []))
    options = {key: value for key, value in getattr(task, "__dict__", {}).items() if not key.startswith("_") and key != "name"}
    problem = task.problem("train", 0, 0)
    about = (type(task).__doc__ or "").strip()
    if as_json:
        print_json({"name": name, "about": about, "options": options, "example": vars(problem)})
        return
    print(about, end="\n\n")
    if options:
        print(table([[key, repr(value)] for key, value in options.items()]), end="\n\n")
    print(f"{problem.prompt}\n\nOne right answer: {problem.answer}")


@app.command()
def sample(
    name: Annotated[str, typer.Argument(help="The task.")],
    option: Annotated[list[str] | None, typer.Option(help=OPTION_HELP)] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many problems.")] = 3,
    split: Annotated[str, typer.Option(help="train or held-out.")] = "train",
    seed: Annotated[int, typer.Option(help="The same seed gives the same problems.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Draw problems, with an answer each."""
    import json

    from spoutnik.cli.output import task_options
    from spoutnik.tasks import make

    task = make(name, **task_options(option or []))
    for index in range(count):
        problem: Any = task.problem(split, seed, index)
        print(json.dumps(vars(problem), ensure_ascii=False) if as_json else f"{problem.prompt}\n= {problem.answer}\n")
