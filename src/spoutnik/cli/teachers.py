"""spoutnik teachers: whom a recipe asks, under which terms, and what it would cost. Sends nothing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.launch import DATA_HELP, RECIPE_HELP

if TYPE_CHECKING:
    from spoutnik.recipe import Recipe, TeacherSpec


def teachers(
    recipe: Annotated[str, typer.Argument(help=RECIPE_HELP)],
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="NAME=PATH")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Show whom a recipe asks, under which terms, and what it will cost at most; nothing is sent."""
    from spoutnik.cli.output import data_paths, print_json
    from spoutnik.recipe import load_recipe

    chosen = load_recipe(recipe, data_paths(data or []))
    found = [_figures(chosen, spec) for spec in chosen.teachers]
    if as_json:
        print_json(found)
        return
    for figures in found:
        bill = (
            f"{figures['paid']:.4f} {figures['currency']} paid, {figures['possibly_paid']:.4f} possibly, of at most {figures['max_cost']:g}"
        )
        print(f"{figures['teacher']}: {figures['model']} at {figures['endpoint']}; terms {figures['terms']}; {bill}")
        for stage, estimate in figures["stages"].items():
            print(f"  {stage}: {estimate or 'known when the student has answered'}")
    if not found:
        print("The recipe asks no teacher: it has no [[teacher]].")


def _figures(recipe: "Recipe", spec: "TeacherSpec") -> dict[str, Any]:
    """The teacher, its terms, its bill so far, and an estimate for each stage that asks it (None for what it will judge)."""
    from spoutnik.evaluate.posed import planned_questions
    from spoutnik.recipe import EvalStage, SampleStage
    from spoutnik.teacher.money import BILLIONTHS
    from spoutnik.teacher.opening import ledger_of
    from spoutnik.teacher.remote import RemoteTeacher
    from spoutnik.teacher.terms import check_terms, examinee
    from spoutnik.train.taught import plan

    stages: dict[str, str | None] = {}
    asking = [stage for stage in recipe.stages if spec.name in stage.inputs().values()]
    provenance = examinee(spec) if asking and all(isinstance(stage, EvalStage) for stage in asking) else check_terms(spec)
    with RemoteTeacher(spec, None, ledger_of(spec), f"{recipe.name}/{spec.name}", provenance) as teacher:
        for stage in asking:
            if isinstance(stage, SampleStage):
                asked = plan(stage, recipe.stage_seed(stage.name))
                plans = [(asked.questions, asked.sampling)]
            elif isinstance(stage, EvalStage):
                plans = planned_questions(stage)
            else:
                stages[stage.name] = None
                continue
            stages[stage.name] = "; ".join(str(teacher.estimate(*each)) for each in plans)
        totals = teacher.totals()
    bill = {"paid": totals.paid / BILLIONTHS, "possibly_paid": (totals.doubtful + totals.in_flight) / BILLIONTHS}
    return {**teacher.provenance, **bill, "max_cost": spec.max_cost, "currency": spec.price.currency, "stages": stages}
