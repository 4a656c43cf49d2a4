"""spoutnik report: the page about a run, made anew from its record."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder, such as runs/sputnik.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures instead of writing the page.")] = False,
) -> None:
    """Write report.html from a run's record; works while the run goes on, too."""
    from spoutnik.cli.output import print_json
    from spoutnik.errors import UserError
    from spoutnik.run.directory import RunDirectory
    from spoutnik.run.record import read
    from spoutnik.run.report import write_report
    from spoutnik.run.summary import summarise

    directory = RunDirectory(run)
    if not directory.record_path.exists():
        raise UserError(f"{run} holds no record.jsonl; give the folder of a run, such as runs/sputnik.")
    if as_json:
        print_json(summarise(read(directory.record_path)))
    else:
        print(write_report(directory))
