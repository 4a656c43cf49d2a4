"""What an evaluation shares with what its models were trained on, and what they make of the rest.

Training data are known of models that one of our runs made, and are what the user names. A problem counts as contaminated if it shares 13
words with them that few other problems have, or stands there whole; that is careful, as GPT-3's authors were (arXiv 2005.14165, appendix
C): problems made from templates share runs without being copies.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from spoutnik.evaluate import run_data
from spoutnik.evaluate.contamination import ItemSet, SetReport, check, file_texts
from spoutnik.evaluate.figures import Clean, Contamination, Estimate
from spoutnik.evaluate.ngrams import Text
from spoutnik.evaluate.posed import Posed
from spoutnik.evaluate.results import Table, first_pass
from spoutnik.recipe.schema import EvalStage
from spoutnik.run.context import StageContext


@dataclass(frozen=True)
class Source:
    """Training data (runs' folders and files) and the models to which they matter."""

    paths: list[Path]
    models: list[str]

    def texts(self) -> Iterator[Text]:
        return chain.from_iterable(run_data.run_texts(path) if run_data.is_run(path) else file_texts(path) for path in self.paths)

    def unknown(self) -> list[str]:
        """What the data were made of that cannot be looked into."""
        return list(dict.fromkeys(chain.from_iterable(run_data.unknown(path) for path in self.paths if run_data.is_run(path))))


def contaminations(
    tasks: Sequence[Posed], tables: dict[str, dict[str, Table]], stage: EvalStage, context: StageContext
) -> list[Contamination]:
    """Every task against every source of training data. `tables` hold the answers of tasks on which answers are right or wrong."""
    sets = [
        ItemSet(posed.label, [problem.prompt for problem in posed.problems], [f"problem {index}" for index in range(len(posed.problems))])
        for posed in tasks
    ]
    found: list[Contamination] = []
    for source in sources(stage, context):
        named = ", ".join(map(str, source.paths))
        print(f"{context.name}: looking for its problems in {named}", file=sys.stderr, flush=True)
        reports, scanned = check(sets, source.texts())
        if scanned.texts:
            found += [_judged(report, source, tables.get(report.items.name, {})) for report in reports]
    return found


def sources(stage: EvalStage, context: StageContext) -> list[Source]:
    """The runs that made the models, each with the models that it made, and what the stage names, for all models."""
    made: dict[Path, list[str]] = {}
    for name in stage.models:
        run = None if name in context.teachers else _maker(context.resolve(name))
        if run is not None:
            made.setdefault(run, []).append(name)
    found = [Source([run], names) for run, names in made.items()]
    return found + ([Source([Path(path) for path in stage.against], list(stage.models))] if stage.against else [])


def _maker(model: Path) -> Path | None:
    """The run in whose folder a checkpoint lies, with the lineage that our stages write."""
    run = model.absolute().parent.parent
    return run if model.parent.name == "checkpoints" and (model / "spoutnik.json").is_file() and run_data.is_run(run) else None


def _judged(report: SetReport, source: Source, tables: dict[str, Table]) -> Contamination:
    bad = [each.own or each.whole for each in report.findings]
    clean = []
    for model in source.models:
        if model not in tables:
            continue
        rest = [answers for answers, found in zip(tables[model], bad, strict=True) if not found]
        reached: Estimate | None = first_pass(rest) if rest else None
        clean.append(Clean(model=model, n=len(rest), all=first_pass(tables[model]), clean=reached))
    return Contamination(
        task=report.items.name, data=[str(path) for path in source.paths], not_looked_into=source.unknown(), problems=len(bad),
        contaminated=sum(bad), whole=report.whole + report.short_whole, wording=report.wording, models=clean,
    )  # fmt: skip
