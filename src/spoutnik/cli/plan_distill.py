"""spoutnik plan distill: what a teacher's words and a student's learning take."""

from typing import Annotated

import typer

from spoutnik.cli.plan_output import Chip, Compare, Drawn, Html, Json, Lang, Location, Measured, Output, Price, Why, show


def distill(
    teacher: Annotated[str, typer.Argument(help="A name of the catalogue, or a config.json or its folder.")],
    student: Annotated[str, typer.Argument(help="The model that learns, likewise.")],
    samples: Annotated[str, typer.Option(help="Answers that the student learns, as in 800k.")],
    length: Annotated[str, typer.Option(help="Mean tokens of an answer with its question.")],
    mode: Annotated[str, typer.Option(help="samples (the teacher writes), logits (it reads answers that exist) or on-policy.")] = "samples",
    epochs: Annotated[str, typer.Option(help="How often the student sees an answer.")] = "2",
    kept: Annotated[str, typer.Option(help="Share of the teacher's answers that is kept.")] = "1",
    devices: Annotated[str | None, typer.Option(help="Devices at hand; else a node, or as many as suit the models.")] = None,
    chip: Chip = "h800-sxm",
    price: Price = None,
    location: Location = "world",
    measured: Measured = None,
    as_json: Json = False,
    html: Html = None,
    why: Why = None,
    compare: Compare = None,
    lang: Lang = None,
) -> None:
    """Distillation: a teacher writes or reads, a student learns."""
    options = {
        "teacher": teacher, "student": student, "samples": samples, "length": length, "mode": mode, "epochs": epochs, "kept": kept,
        "devices": devices, "chip": chip, "price": price, "location": location, "measured": measured,
    }  # fmt: skip
    show(_plan, Output(as_json, html, why, compare, lang, options))


def _plan(
    teacher: str,
    student: str,
    samples: str,
    length: str,
    mode: str,
    epochs: str,
    kept: str,
    devices: str | None,
    chip: str,
    price: str | None,
    location: str,
    measured: str | None,
) -> Drawn:
    from spoutnik.plan.amount import amount, count
    from spoutnik.plan.bill import rent_of
    from spoutnik.plan.chips import chip as chip_named
    from spoutnik.plan.distillation import Lesson, plan_distillation
    from spoutnik.plan.models import open_model, title_of

    device = chip_named(chip)
    lesson = Lesson(mode, amount(samples, "--samples"), amount(length, "--length"), amount(epochs, "--epochs"), amount(kept, "--kept"))
    title = f"{title_of(teacher)} > {title_of(student)}, {device.title}"
    number = count(devices, "--devices") if devices is not None else None
    rent = rent_of(price, location, measured)
    return Drawn(plan_distillation(open_model(teacher), open_model(student), title, device, number, lesson, rent), device.memory_gb * 1e9)
