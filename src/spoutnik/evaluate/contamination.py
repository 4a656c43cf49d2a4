"""Whether evaluation items stand in training data: what is compared with what, and what is said of it."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from spoutnik.errors import UserError
from spoutnik.evaluate.ngrams import LENGTH, Findings, Overlap, Scanned, Text, scan
from spoutnik.recipe.schema import TaskSpec
from spoutnik.tasks import make
from spoutnik.tasks.harness import HarnessTask
from spoutnik.tasks.rows import records

QUESTION_FIELDS = ("question", "prompt", "problem", "input", "query", "text")
_BLOCK_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class ItemSet:
    """The questions of one evaluation, as they are asked, and where each comes from."""

    name: str
    texts: list[str]
    places: list[str]


@dataclass(frozen=True)
class SetReport:
    """Of one evaluation: counts of items, and what was found of each.

    `long` items have 13 words or more. Of them `overlapping` share a run of 13 with the training data, and `wording` of these only runs
    that many items hold, so a template's. `whole` stand there from their first word to their last; so do `short_whole` of the `short`.
    """

    items: ItemSet
    findings: list[Findings]
    long: int
    overlapping: int
    wording: int
    whole: int
    short: int
    short_whole: int


def task_items(spec: TaskSpec) -> ItemSet:
    """The problems that an evaluation on this task asks."""
    task, count = make(spec.name, **spec.options), spec.problems or 0
    count = task.available(count) if isinstance(task, HarnessTask) else count
    problems = [task.problem(spec.split, 0, index) for index in range(count)]
    return ItemSet(spec.name, [problem.prompt for problem in problems], [f"{spec.split} problem {index}" for index in range(count)])


def file_items(path: Path, field: str | None = None) -> ItemSet:
    """The questions of a JSONL file: `field` of each line, else the first of QUESTION_FIELDS that it has, else its first user turn."""
    texts, places = [], []
    for where, record in records(path, f"a question under {field or ', '.join(QUESTION_FIELDS)}"):
        texts.append(_question(record, field, where))
        places.append(where)
    return ItemSet(str(path), texts, places)


def _question(record: dict[str, Any], field: str | None, where: str) -> str:
    names = [field] if field else [name for name in QUESTION_FIELDS if name in record]
    found = record.get(names[0]) if names else None
    if found is None and not field and isinstance(record.get("messages"), list):
        asked = [turn.get("content") for turn in record["messages"] if isinstance(turn, dict) and turn.get("role") == "user"]
        found = asked[0] if asked else None
    if not isinstance(found, str):
        raise UserError(f"{where} has no question as text (fields: {', '.join(record) or 'none'}); name its field with --field.")
    return found


def file_texts(path: Path) -> Iterator[Text]:
    """The training data of a file, or of all .jsonl, .txt and .md files (packed, `.gz`, too) of a folder, piece by piece.

    Of a line of JSONL every string is a text of its own, whatever its field; any other file is one text.
    """
    if path.is_dir():
        endings = (".jsonl", ".txt", ".md")
        files = sorted(file for file in path.rglob("*") if file.name.removesuffix(".gz").endswith(endings))
        if not files:
            raise UserError(f"The folder {path} holds no {', '.join(endings)} file; name the training data's files.")
    else:
        files = [path]
    for file in files:
        yield from _texts(file)


def _texts(file: Path) -> Iterator[Text]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8", newline="\n") as opened:
            if file.name.removesuffix(".gz").endswith(".jsonl"):
                yield from _lines(opened, file)
            else:
                yield from _blocks(opened, file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); convert it.") from error
    except (OSError, EOFError) as error:
        raise UserError(
            f"cannot read {file} ({getattr(error, 'strerror', None) or error}); give the path of a text or JSONL file."
        ) from error


def _lines(file: TextIO, path: Path) -> Iterator[Text]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); put one object on each line.") from error
        yield from (Text(where, text) for text in _strings(content))


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _strings(value)


def _blocks(file: TextIO, path: Path) -> Iterator[Text]:
    """Cut at the ends of lines, or between words where a line is longer than a block."""
    rest, first, number = "", True, 1
    while block := file.read(_BLOCK_CHARACTERS):
        text = rest + block
        cut = text.rfind("\n") + 1 or text.rfind(" ") + 1 or len(text)
        yield Text(f"{path}, from line {number}", text[:cut], continues=not first)
        number += text.count("\n", 0, cut)
        rest, first = text[cut:], False
    if rest:
        yield Text(f"{path}, from line {number}", rest, continues=not first)


def check(sets: Sequence[ItemSet], training: Iterable[Text]) -> tuple[list[SetReport], Scanned]:
    """Reads the training data once, whatever its size, and says of each evaluation what it shares with it."""
    overlaps = [Overlap(items.texts) for items in sets]
    scanned = scan(overlaps, training)
    return [_report(items, overlap.findings()) for items, overlap in zip(sets, overlaps, strict=True)], scanned


def _report(items: ItemSet, findings: list[Findings]) -> SetReport:
    long = [each for each in findings if each.words >= LENGTH]
    short = [each for each in findings if each.words < LENGTH]
    overlapping = [each for each in long if each.found]
    return SetReport(
        items, findings, len(long), len(overlapping), sum(not each.own for each in overlapping), sum(each.whole for each in long),
        len(short), sum(each.whole for each in short),
    )  # fmt: skip


def worst(report: SetReport, count: int) -> list[dict[str, Any]]:
    """The items of which most was found: those that stand there whole first, then by the share of their words."""
    order = sorted(enumerate(report.findings), key=lambda each: (-each[1].whole, -each[1].coverage, each[0]))
    return [
        {"item": report.items.places[index], "text": report.items.texts[index], "words": each.words, "whole": each.whole,
         "coverage": each.coverage, "found_in": each.where}
        for index, each in order[:count] if each.found
    ]  # fmt: skip


def figures(report: SetReport, examples: int) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "evaluation": report.items.name, "items": len(report.findings), "long": report.long, "overlapping": report.overlapping,
        "wording_only": report.wording, "whole": report.whole, "short": report.short, "short_whole": report.short_whole,
        "share": report.overlapping / report.long if report.long else None, "worst": worst(report, examples),
    }  # fmt: skip
