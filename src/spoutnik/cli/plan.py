"""spoutnik plan: what a model, a run or a service would cost, before it runs. Each command lives in a `plan_*.py` beside this file."""

from typing import Annotated

import typer

from spoutnik.cli import (
    plan_distill,
    plan_grade,
    plan_h20,
    plan_laws,
    plan_machine,
    plan_model,
    plan_programme,
    plan_recipe,
    plan_rl,
    plan_rules,
    plan_schedule,
    plan_serve,
    plan_train,
    plan_trend,
)

app = typer.Typer(
    help="Plan: sizes, time, memory, money, energy and rules, before anything runs.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    grade: Annotated[bool, typer.Option("--grade", help="The planner's errors on published runs, as plan grade.")] = False,
) -> None:
    """Plan: sizes, time, memory, money, energy and rules, before anything runs."""
    if grade and context.invoked_subcommand is None:
        plan_grade.grade()


app.command("model")(plan_model.model)
app.command("models")(plan_model.models)
app.command("train")(plan_train.train)
app.command("chips")(plan_rules.chips)
app.command("rules")(plan_rules.rules)
app.command("schedule")(plan_schedule.schedule)
app.command("grade")(plan_grade.grade)
app.command("h20")(plan_h20.h20)
app.command("laws")(plan_laws.laws)
app.command("trend")(plan_trend.trend)
app.command("serve")(plan_serve.serve)
app.command("rl")(plan_rl.rl)
app.command("distill")(plan_distill.distill)
app.command("programme")(plan_programme.programme)
app.command("machine")(plan_machine.machine)
app.command("recipe")(plan_recipe.recipe)
