"""spoutnik models: which models are here, and what they are made of."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List and show models.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(
    runs: Annotated[Path, typer.Option(help="The folder that holds runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Models that have a name, and the checkpoints of runs in this folder."""
    from spoutnik.checkpoint.find import NAMED, find
    from spoutnik.cli.output import print_json, table
    from spoutnik.errors import UserError

    found: dict[str, str] = {}
    for name in NAMED:
        try:
            found[name] = str(find(name))
        except UserError as error:
            found[name] = f"not here: {error}"
    found |= {str(config.parent): str(config.parent) for config in sorted(runs.glob("*/checkpoints/*/config.json"))}
    if as_json:
        print_json(found)
    else:
        print(table([[name, path] if name != path else [name, ""] for name, path in found.items()]))


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, a GGUF file, or a model's name.")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """A model's family, sizes, parameters and where it came from."""
    import json

    from spoutnik.checkpoint.find import find
    from spoutnik.checkpoint.load import open_model
    from spoutnik.cli.output import print_json, table

    path = find(model)
    loaded, _ = open_model(path)
    lineage_file = path / "spoutnik.json"
    shown: dict[str, Any] = {
        "path": str(path),
        "parameters": sum(parameter.numel() for parameter in loaded.parameters()),
        "config": loaded.config.to_hf(),
        "lineage": json.loads(lineage_file.read_text(encoding="utf-8")) if lineage_file.is_file() else None,
    }
    if as_json:
        print_json(shown)
        return
    print(f"{path}\n{shown['parameters'] / 1e6:,.2f} M parameters\n")
    print(table([[key, json.dumps(value)] for key, value in shown["config"].items()]))
    if shown["lineage"]:
        print("\nMade by " + json.dumps({key: shown["lineage"].get(key) for key in ("recipe", "stage", "parents", "seed")}))
