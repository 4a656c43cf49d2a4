"""spoutnik plan grade: the planner's errors on published runs, and the fit of its constants."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spoutnik.cli.plan_output import Json, Lang


def grade(
    as_json: Json = False,
    report: Annotated[Path | None, typer.Option(help="Write the whole report here, its picture into images/ beside it.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Fit the constants again on calibration rows and print them.")] = False,
    lang: Lang = None,
) -> None:
    """How far plans are off on published runs that they were not calibrated on, and whether their intervals hold."""
    from spoutnik.cli.output import print_json, table
    from spoutnik.errors import UserError
    from spoutnik.plan.grade import grade as graded
    from spoutnik.plan.grade_page import markdown, summary, svg, verdicts
    from spoutnik.plan.runs import content
    from spoutnik.plan.speech import language_of, speech

    words = speech(language_of(lang))
    if fit:
        _fit()
        return
    grades = graded()
    scores = grades.scores()
    if report is not None:
        image = report.parent / "images" / "grading.svg"
        try:
            image.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(markdown(grades, str(content()["split_date"]), "images/grading.svg"), encoding="utf-8")
            image.write_text(svg(grades), encoding="utf-8")
        except OSError as error:
            raise UserError(
                "--report {report} cannot be written ({strerror}); name a file in a folder that can be.",
                report=report,
                strerror=error.strerror,
            ) from error
    if as_json:
        rows = {
            name: [asdict(row) | {"error": row.error, "inside": row.inside} for row in getattr(grades, name)]
            for name in ("hours", "steps", "memory")
        }
        print_json({"scores": {name: asdict(score) for name, score in scores.items()}, **rows})
        return
    print("\n".join(verdicts(scores, words)))
    print(table(summary(scores, words)))


def _fit() -> None:
    import sys

    from spoutnik.plan.calibration import calibration, to_toml
    from spoutnik.plan.fit import fit, spreads

    found = spreads(fit(calibration(), report=lambda line: print(line, file=sys.stderr)))
    print(to_toml(found), end="")
