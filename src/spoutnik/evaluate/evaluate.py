"""The eval stage: every model on the same problems, with intervals and paired tests, and whether the thinking supports the answers.

Besides, what they make of general text. What it keeps is the answers. They lie in its folder, `answers/`, as they are given; figures
are made from them at the end, so that a stage that was stopped goes on with what is missing.
"""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.engine.generator import Engine
from spoutnik.evaluate.answers import Answered, AnswerFile
from spoutnik.evaluate.contaminated import contaminations
from spoutnik.evaluate.figures import Evaluation, Measure, Model, Pair, Price, Result, Task
from spoutnik.evaluate.local import answer_here
from spoutnik.evaluate.posed import Posed, instruction, pose
from spoutnik.evaluate.remote import answer_there
from spoutnik.evaluate.results import Table, pairs_of, result_of
from spoutnik.evaluate.texts import TextFile
from spoutnik.evaluate.voting import has_votes
from spoutnik.model.flops import forward_flops
from spoutnik.recipe.schema import EvalStage
from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.run.context import StageContext
from spoutnik.run.directory import write_whole
from spoutnik.teacher.base import Sampling

MAX_BATCH = 128
SAMPLES_SHOWN = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Tables = dict[str, Table]
"""The answers to a task, by model."""


def run_eval(stage: EvalStage, context: StageContext) -> None:
    """Evaluates every model on every task; results go to the record and to evaluation.json in the stage's folder (see `figures`).

    Remote models come first: what is wrong with a server or a key is then told before this machine has worked.
    """
    context.record.truncate_stage(context.name, 0)
    tasks = [pose(spec) for spec in stage.tasks]
    files: dict[tuple[str, str], AnswerFile] = {}
    texts = TextFile(context.directory / "texts.json")
    for name in sorted(stage.models, key=lambda name: name not in context.teachers):
        engines: list[Engine] = []  # one model at a time is in memory, and none whose answers are all there
        for posed in tasks:
            files[name, posed.label] = _fill(name, posed, stage, context, engines)
        for text in stage.texts if name not in context.teachers else ():
            texts.measure(name, text, stage.text_characters, partial(_engine_of, name, stage, context, engines))
    tables: dict[str, Tables] = {
        posed.label: {name: files[name, posed.label].take(len(posed.problems), stage.samples_per_problem) for name in stage.models}
        for posed in tasks
    }
    results, pairs, measures = _figures(tasks, tables, context)
    scored = {result.task for result in results}
    known = contaminations(tasks, {task: table for task, table in tables.items() if task in scored}, stage, context)
    evaluation = Evaluation(
        date=datetime.now(UTC).isoformat(timespec="seconds"), spoutnik=context.lineage.get("spoutnik", "unknown"), seed=context.seed,
        temperature=stage.temperature, max_new_tokens=stage.max_new_tokens, dtype=stage.dtype,
        models=[_model(name, context) for name in stage.models],
        tasks=[Task(name=posed.label, split=posed.spec.split, problems=len(posed.problems)) for posed in tasks], results=results,
        pairs=pairs, texts=texts.measured, measures=measures, contaminations=known,
    )  # fmt: skip
    _log(evaluation, tables, context)
    write_whole(context.directory / "evaluation.json", evaluation.model_dump_json(indent=2) + "\n")


def event_of(result: Result) -> dict[str, Any]:
    """A result as the record has it: flat, pass@1 as `accuracy` with `low` and `high`, and pass@k and cons@k by those names."""
    figures = result.model_dump(exclude={"pass_at_1", "pass_at_k", "cons_at_k", "pass_at"})
    event = {"accuracy": result.pass_at_1.value, "low": result.pass_at_1.low, "high": result.pass_at_1.high}
    several = {"pass": result.pass_at_k, "cons": result.cons_at_k}
    event |= {f"{name}@{result.k}": estimate.value for name, estimate in several.items() if estimate}
    return {**figures, "mean_length": result.tokens_per_answer, **event}


def _fill(name: str, posed: Posed, stage: EvalStage, context: StageContext, engines: list[Engine]) -> AnswerFile:
    """Gets the answers of a model to a task that are not there yet. The model's engine is opened when it is first needed."""
    remote = context.teachers.get(name)
    path = None if remote else context.resolve(name)
    file = AnswerFile(context.directory / "answers", name, posed.kept_as, _decisive(remote or path, posed, stage, context.seed))
    places = file.missing(posed.problems, stage.samples_per_problem)
    if not places:
        return file
    sampling = Sampling(stage.max_new_tokens, stage.temperature)
    if remote:
        questions, sampling, judged = posed.for_remote(places, sampling)
        graders = getattr(posed.task, "graders", 1)
        answer_there(remote, questions, places, sampling, judged, graders, file.add, context, posed.label)
        return file
    engine, price = _engine_of(name, stage, context, engines), context.ledger.price
    if posed.harness:
        from spoutnik.evaluate.harness_answers import harness_here

        answers = harness_here(engine, posed.harness, posed.problems, places, sampling, context.seed, price)
    else:
        answers = answer_here(engine, posed.task, posed.problems, places, sampling, context.seed, price, stage.instruct)
    tokens = cells = right = 0
    with context.progress(f"{name}, {posed.label}", len(places)) as progress:
        for number, answer in enumerate(answers, start=1):
            file.add(answer)
            tokens, cells, right = tokens + answer.tokens, cells + answer.tokens + answer.prompt_tokens, right + answer.correct
            progress.update(number, {"accuracy": right / number})
    context.ledger.add(tokens, forward_flops(engine.model.config, cells, cells // len(places)))
    context.ledger.save()
    return file


def _engine_of(name: str, stage: EvalStage, context: StageContext, engines: list[Engine]) -> Engine:
    """The one in `engines`, which is filled when it is first needed."""
    if not engines:
        engines.append(Engine(*open_model(context.resolve(name), DTYPES[stage.dtype], computing_device()), max_batch=MAX_BATCH))
    return engines[0]


def _decisive(model: TeacherSpec | Path | None, posed: Posed, stage: EvalStage, seed: int) -> dict[str, Any]:
    """All that decides an answer; of a local model the sizes and times of its files stand for its weights."""
    told = instruction(isinstance(model, TeacherSpec), stage, posed)
    same = {**posed.decisive, "max_new_tokens": stage.max_new_tokens, "temperature": stage.temperature, "instruction": told}
    if isinstance(model, TeacherSpec):
        return {**same, **{key: value for key, value in model.decisive.items() if key not in ("terms", "accept_terms")}}
    assert model is not None
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    weights = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
    return {**same, "files": weights, "dtype": stage.dtype, "seed": seed}


def _figures(tasks: list[Posed], tables: dict[str, Tables], context: StageContext) -> tuple[list[Result], list[Pair], list[Measure]]:
    """What comes of the answers; `tables` of harness's tasks then say by the task's metric what is right."""
    results: list[Result] = []
    pairs: list[Pair] = []
    measures: list[Measure] = []
    for posed in tasks:
        if posed.harness:
            from spoutnik.evaluate.harness_answers import decided, measures_of

            measures += measures_of(posed.harness, posed.label, tables[posed.label])
            by_metric = decided(posed.harness, tables[posed.label])
            if by_metric is None:
                continue
            tables[posed.label] = by_metric
        answers, votes = tables[posed.label], has_votes(posed.problems)
        for name, table in answers.items():
            remote = context.teachers.get(name)
            results.append(result_of(name, posed.label, table, votes, context.ledger.price, remote.price.currency if remote else None))
        pairs += pairs_of(posed.label, answers)
    return results, pairs, measures


def _log(evaluation: Evaluation, tables: dict[str, Tables], context: StageContext) -> None:
    for result in evaluation.results:
        context.log("eval", **event_of(result))
        for answer in tables[result.task][result.model][0][:SAMPLES_SHOWN]:
            context.log("sample", when="eval", model=result.model, **_shown(answer))
    for pair in evaluation.pairs:
        context.log("pair", **pair.model_dump())
    for general in evaluation.texts:
        context.log("perplexity", **general.model_dump())
    for measure in evaluation.measures:
        context.log("measure", **measure.model_dump())
    for contamination in evaluation.contaminations:
        context.log("contamination", **contamination.model_dump())


def _shown(answer: Answered) -> dict[str, Any]:
    return {"prompt": answer.prompt, "text": answer.text, "correct": answer.correct}


def _model(name: str, context: StageContext) -> Model:
    remote = context.teachers.get(name)
    if remote is None:
        return Model(name=name, kind="local", id=str(context.resolve(name)))
    price = Price(**remote.price.model_dump())
    return Model(name=name, kind="remote", id=remote.model, dialect=remote.dialect, endpoint=remote.base_url, price=price)
