"""spoutnik plan schedule: a pipeline schedule cell by cell, its bubble, and a chart of it."""

import math
from pathlib import Path
from typing import Annotated

import typer

from spoutnik.cli.plan_output import Json, Lang

MOST_CELLS = 200_000
"""A second's work; what people run has a few thousand."""
WIDEST = 20_000
"""Units of time that a chart in letters shows at most."""


def schedule(
    name: Annotated[str, typer.Argument(help="1f1b, interleaved, zb1p, zbv, dualpipe or dualpipev.")],
    stages: Annotated[int, typer.Option(help="Devices of the pipeline.", min=1)] = 8,
    microbatches: Annotated[int, typer.Option(help="Microbatches of one step.", min=1)] = 20,
    chunks: Annotated[int, typer.Option(help="Stages on one device, interleaved alone.", min=1)] = 2,
    forward: Annotated[float, typer.Option(help="How long a forward takes on one stage.")] = 1.0,
    backward: Annotated[float, typer.Option(help="How long a whole backward takes.")] = 2.0,
    weights: Annotated[float, typer.Option(help="The part of the backward that makes gradients of weights.")] = 1.0,
    together: Annotated[float | None, typer.Option(help="A forward and a backward that hide each other's traffic; else their sum.")] = None,
    hop: Annotated[float, typer.Option(help="How long activations travel between devices.")] = 0.0,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it.")] = None,
    as_json: Json = False,
    lang: Lang = None,
) -> None:
    """Generates and simulates a pipeline schedule: who does what when, how long devices wait, what they hold."""
    from spoutnik.cli.output import print_json
    from spoutnik.errors import UserError
    from spoutnik.plan.schedule import Durations, formulas, gantt, generate, simulate
    from spoutnik.plan.speech import language_of, speech

    words = speech(language_of(lang))
    for option, value, least in _timed(forward, backward, weights, together, hop):
        if not least <= value < math.inf:
            raise UserError("{option} {value} is no time that this can take; give a number above 0.", option=option, value=f"{value:g}")
    if stages * microbatches > MOST_CELLS:
        raise UserError("{stages} devices with {microbatches} microbatches are too many to draw; take fewer.", stages=stages,
                        microbatches=microbatches)  # fmt: skip
    durations = Durations(forward, backward, weights, together)
    timeline = simulate(generate(name, stages, microbatches, chunks), durations, hop)
    exact = hop == 0 and formulas.holds(name, stages, microbatches, durations)
    closed = formulas.bubble(name, stages, durations)
    if svg is not None:
        try:
            svg.write_text(gantt.svg(timeline), encoding="utf-8")
        except OSError as error:
            raise UserError(
                "--svg {svg} cannot be written ({strerror}); name a file in a folder that exists.", svg=svg, strerror=error.strerror
            ) from error
    if as_json:
        cells = [
            {"device": cell.device, "start": cell.start, "end": cell.end, "kind": cell.task.kind, "stage": cell.task.stage,
             "microbatch": cell.task.microbatch, "beside": cell.task.beside}
            for row in timeline.cells for cell in row
        ]  # fmt: skip
        print_json(
            {
                "schedule": name,
                "devices": stages,
                "stages": timeline.program.stages,
                "microbatches": microbatches,
                "seconds": timeline.seconds,
                "idle": timeline.idle,
                "idle_within": timeline.idle_within,
                "bubble": timeline.bubble,
                "formula": closed,
                "formula_holds": exact,
                "in_flight": timeline.in_flight(),
                "parameter_copies": timeline.program.copies,
                "cells": cells,
            }
        )
        return
    found = timeline.idle_within if name == "zbv" else timeline.idle
    answer = words(
        "schedule.answer", name=name, devices=stages, microbatches=microbatches, seconds=words.number(timeline.seconds),
        bubble=words.quantity(timeline.bubble, "share"), measure=words("schedule.idle_within" if name == "zbv" else "schedule.idle"),
        idle=words.number(found), agreed=words("schedule.agrees" if exact else "schedule.differs", closed=words.number(closed)),
    )  # fmt: skip
    print(answer)
    print(words("schedule.holds", most=max(timeline.in_flight()), stages=timeline.program.stages), end="\n\n")
    unit = min(forward, backward - weights or forward, weights or forward)
    if timeline.seconds / unit > WIDEST:
        print(words("schedule.too_wide"))
        return
    print(gantt.text(timeline, unit))
    print(f"\n{words('schedule.legend')}")


def _timed(forward: float, backward: float, weights: float, together: float | None, hop: float) -> list[tuple[str, float, float]]:
    """Each duration with the least that it can be: work takes some time, a hop and the gradients of weights may take none."""
    some = math.ulp(0.0)
    return [
        ("--forward", forward, some), ("--backward", backward, some), ("--weights", weights, 0.0), ("--hop", hop, 0.0),
        ("--together", forward + backward if together is None else together, some),
    ]  # fmt: skip
