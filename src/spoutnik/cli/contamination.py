"""spoutnik contamination: whether what a model is evaluated on stands in what it was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spoutnik.evaluate.contamination import ItemSet, SetReport

TRAIN_HELP = "Training data: a JSONL or text file, packed (.gz) or not, a folder of them, or a run's folder; may be given several times."
EVAL_HELP = "Evaluation: a JSONL file of questions, or a task's name; may be given several times."


def contamination(
    run: Annotated[Path | None, typer.Argument(help="A run's folder: all its training data against all that it is evaluated on.")] = None,
    train: Annotated[list[Path] | None, typer.Option(help=TRAIN_HELP)] = None,
    evaluation: Annotated[list[str] | None, typer.Option("--eval", help=EVAL_HELP)] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the tasks, as key=value; may be given several times.")] = None,
    problems: Annotated[int, typer.Option(min=1, help="How many held-out problems of each task.")] = 200,
    field: Annotated[str | None, typer.Option(help="The field of --eval files that holds the question.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="How many of the worst items are shown.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Look for evaluation questions in training data: runs of 13 words, whatever the punctuation."""
    from itertools import chain

    from spoutnik.cli.output import print_json
    from spoutnik.errors import UserError
    from spoutnik.evaluate import contamination as checks
    from spoutnik.evaluate import run_data

    for path in [run] if run else []:
        if not run_data.is_run(path):
            raise UserError(f"{path} is no run's folder (it holds no record.jsonl and no stages); name training data with --train.")
    sources = [path for path in (run, *(train or [])) if path]
    if not sources:
        raise UserError("There is no training data to look into; give a run's folder, or files with --train.")
    sets = _sets(evaluation or [], option or [], problems, field)
    if not sets:
        if run is None:
            raise UserError("There is no evaluation to look for; name a JSONL file or a task with --eval.")
        sets = run_data.run_items(run)
    texts = chain.from_iterable(run_data.run_texts(path) if run_data.is_run(path) else checks.file_texts(path) for path in sources)
    reports, scanned = checks.check(sets, texts)
    unknown = list(dict.fromkeys(chain.from_iterable(run_data.unknown(path) for path in sources if run_data.is_run(path))))
    if as_json:
        results = [checks.figures(report, examples) for report in reports]
        print_json({"evaluations": results, "training": vars(scanned), "not_looked_into": unknown})
        return
    print(_answer(reports))
    read = f"{scanned.characters / 1e6:,.1f} million characters in {scanned.texts:,} texts"
    print(f"Looked into {read}." + (f" What {', '.join(unknown)} was made of cannot be looked into." if unknown else ""))
    for report in reports:
        print(_section(report, examples))


def _sets(names: list[str], options: list[str], problems: int, field: str | None) -> "list[ItemSet]":
    from spoutnik.cli.output import task_options
    from spoutnik.evaluate.contamination import file_items, task_items
    from spoutnik.recipe.schema import TaskSpec

    files = [Path(name) for name in names]
    return [
        file_items(path, field)
        if path.is_file() or (path.name.removesuffix(".gz").endswith(".jsonl") and ":" not in name)
        else task_items(TaskSpec.model_validate({**task_options(options), "name": name, "split": "held-out", "problems": problems}))
        for name, path in zip(names, files, strict=True)
    ]


def _answer(reports: "list[SetReport]") -> str:
    items = sum(report.long + report.short for report in reports)
    whole = sum(report.whole + report.short_whole for report in reports)
    partly = sum(report.overlapping - report.wording for report in reports)
    wording = sum(report.wording for report in reports)
    if not whole + partly + wording:
        return f"None of {items:,} items shares a run of 13 words with the training data."
    return (
        f"Of {items:,} items {whole:,} stand in the training data whole; {partly:,} share a run of 13 words of their own with it, "
        f"{wording:,} only wording that many items have."
    )


def _section(report: "SetReport", examples: int) -> str:
    from spoutnik.evaluate.contamination import worst

    lines = [f"\n{report.items.name}: {report.long + report.short:,} items"]
    if report.long:
        lines.append(
            f"  {report.long:,} of 13 words or more: {report.overlapping:,} ({report.overlapping / report.long:.1%}) share a run of 13 "
            f"words, {report.wording:,} of them only common wording; {report.whole:,} stand there whole"
        )
    if report.short:
        lines.append(
            f"  {report.short:,} of fewer words: {report.short_whole:,} ({report.short_whole / report.short:.1%}) stand there whole"
        )
    for found in worst(report, examples):
        text = " ".join(found["text"].split())
        shown = text if len(text) <= 160 else text[:157] + "..."
        lines.append(
            f"  {'whole' if found['whole'] else format(found['coverage'], '.0%')}, {found['item']}, in {found['found_in']}: {shown}"
        )
    return "\n".join(lines)
