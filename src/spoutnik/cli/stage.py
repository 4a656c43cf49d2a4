"""spoutnik pretrain, sft, rl, dpo, distill: one stage of a recipe, with whatever it builds on that is not finished yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from spoutnik.cli.launch import DATA_HELP, OUT_HELP, RECIPE_HELP

HELP = {
    "pretrain": "Pretrain a model from scratch: one stage of a recipe, or a file with that stage and its corpus.",
    "sft": "Fine-tune a model on samples: one stage of a recipe, or a file with that one stage.",
    "rl": "Reinforcement learning with verifiable rewards: one stage of a recipe, or a file with that one stage.",
    "dpo": "Learn from pairs of a better and a worse answer (DPO): one stage of a recipe, or a file with that one stage.",
    "logits": "Store a teacher's distributions over given answers: one stage of a recipe, or a file with that one stage.",
    "distill": "Teach a student from a teacher: one stage of a recipe, or a file with that one stage.",
}
KINDS = tuple(HELP)


def command(kind: str) -> Callable[..., None]:
    """The command for one kind of stage."""

    def run(
        recipe: Annotated[str, typer.Argument(help=RECIPE_HELP)],
        stage: Annotated[str | None, typer.Argument(help=f"Which {kind} stage, where the recipe has several.")] = None,
        data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="NAME=PATH")] = None,
        out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
        save_every: Annotated[float, typer.Option(help="Seconds between saved states.")] = 60.0,
        as_json: Annotated[bool, typer.Option("--json", help="Print where everything is as JSON.")] = False,
    ) -> None:
        from spoutnik.cli.launch import carry, print_results
        from spoutnik.cli.output import data_paths
        from spoutnik.recipe import find_recipe, load_recipe

        chosen = load_recipe(recipe, data_paths(data or []))
        name = _choose(kind, {other.name: other.kind for other in chosen.stages}, stage, recipe)
        directory = carry(chosen, out or Path("runs") / chosen.name, str(find_recipe(recipe)), only=name, save_every=save_every)
        print_results(chosen, directory, as_json)

    return run


def _choose(kind: str, stages: dict[str, str], wanted: str | None, recipe: str) -> str:
    from spoutnik.errors import UserError

    names = [name for name, its_kind in stages.items() if its_kind == kind]
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    if not names:
        raise UserError(f"{recipe} has no {kind} stage; it has: {', '.join(f'{name} ({its_kind})' for name, its_kind in stages.items())}.")
    found = f"has no {kind} stage {wanted!r}" if wanted else f"has {len(names)} {kind} stages"
    raise UserError(f"{recipe} {found}; name one of: {', '.join(names)}.")
