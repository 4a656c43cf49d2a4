"""spoutnik plan model: what a model is made of and what a token of it costs."""

from typing import Annotated

import typer

JSON = Annotated[bool, typer.Option("--json", help="The figures as JSON.")]
LANG = Annotated[str, typer.Option("--lang", help="en or fr.")]


def model(
    name: Annotated[str | None, typer.Argument(help="A name of the catalogue, or a config.json or its folder.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens in a sequence.", min=1)] = None,
    as_json: JSON = False,
    lang: LANG = "en",
) -> None:
    """Parameters, total and active, and operations a token by component."""
    from spoutnik.plan.components import counts
    from spoutnik.plan.models import open_model

    print(counts(open_model(name), sequence_length))


def models(as_json: JSON = False) -> None:
    """The models of the catalogue."""
    from spoutnik.cli.output import print_json, table
    from spoutnik.plan.models import catalogue

    rows = {name: {"title": entry.title, "source": entry.source} for name, entry in catalogue().items()}
    if as_json:
        print_json(rows)
    else:
        print(table([[name, row["title"], row["source"]] for name, row in rows.items()]))
