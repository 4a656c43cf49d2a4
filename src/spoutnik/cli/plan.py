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
from spoutnik.cli.plan_output import spoken, write_plainly

app = typer.Typer(
    help="Plan: sizes, time, memory, money, energy and rules, before anything runs.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    grade: Annotated[bool, typer.Option("--grade", help="The planner's errors on published runs, as plan grade.")] = False,
) -> None:
    """Plan: sizes, time, memory, money, energy and rules, before anything runs."""
    write_plainly()
    if grade and context.invoked_subcommand is None:
        plan_grade.grade()


app.command("model")(spoken(plan_model.model))
app.command("models")(spoken(plan_model.models))
app.command("train")(spoken(plan_train.train))
app.command("chips")(spoken(plan_rules.chips))
app.command("rules")(spoken(plan_rules.rules))
app.command("schedule")(spoken(plan_schedule.schedule))
app.command("grade")(spoken(plan_grade.grade))
app.command("h20")(spoken(plan_h20.h20))
app.command("laws")(spoken(plan_laws.laws))
app.command("trend")(spoken(plan_trend.trend))
app.command("serve")(spoken(plan_serve.serve))
app.command("rl")(spoken(plan_rl.rl))
app.command("distill")(spoken(plan_distill.distill))
app.command("programme")(spoken(plan_programme.programme))
app.command("machine")(spoken(plan_machine.machine))
app.command("recipe")(spoken(plan_recipe.recipe))
