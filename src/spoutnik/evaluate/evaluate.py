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
from spoutnik.errors import UserError
from spoutnik.evaluate.answers import AnswerFile
from spoutnik.evaluate.figures import Evaluation, General, Model, Pair, Price, Result, Task
from spoutnik.evaluate.local import answer_here
from spoutnik.evaluate.remote import answer_there, questions_of
from spoutnik.evaluate.results import Table, pairs_of, result_of
from spoutnik.evaluate.texts import TextFile
from spoutnik.evaluate.voting import has_votes
from spoutnik.model.flops import forward_flops
from spoutnik.recipe.schema import EvalStage, TaskSpec
from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.run.context import StageContext
from spoutnik.run.directory import write_whole
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem
from spoutnik.teacher.base import Question, Sampling
from spoutnik.train.taught import INSTRUCTION

MAX_BATCH = 128
SAMPLES_SHOWN = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run_eval(stage: EvalStage, context: StageContext) -> None:
    """Evaluates every model on every task; results go to the record and to evaluation.json in the stage's folder (see `figures`).

    Remote models come first: what is wrong with a server or a key is then told before this machine has worked.
    """
    context.record.truncate_stage(context.name, 0)
    files: dict[tuple[str, str], AnswerFile] = {}
    texts = TextFile(context.directory / "texts.json")
    for name in sorted(stage.models, key=lambda name: name not in context.teachers):
        engines: list[Engine] = []  # one model at a time is in memory, and none whose answers are all there
        for spec in stage.tasks:
            files[name, label(spec)] = _fill(name, spec, stage, context, engines)
        for text in stage.texts if name not in context.teachers else ():
            texts.measure(name, text, stage.text_characters, partial(_engine_of, name, stage, context, engines))
    tables: dict[str, dict[str, Table]] = {
        label(spec): {name: files[name, label(spec)].take(spec.problems or 0, stage.samples_per_problem) for name in stage.models}
        for spec in stage.tasks
    }
    evaluation = _evaluation(stage, context, tables, texts.measured)
    for result in evaluation.results:
        context.log("eval", **event_of(result))
        for answer in tables[result.task][result.model][0][:SAMPLES_SHOWN]:
            context.log("sample", when="eval", model=result.model, prompt=answer.prompt, text=answer.text, correct=answer.correct)
    for pair in evaluation.pairs:
        context.log("pair", **pair.model_dump())
    for general in evaluation.texts:
        context.log("perplexity", **general.model_dump())
    write_whole(context.directory / "evaluation.json", evaluation.model_dump_json(indent=2) + "\n")


def problems_of(spec: TaskSpec) -> list[Problem]:
    """Problems are drawn with seed 0, so that every run sees the same ones."""
    task = make(spec.name, **spec.options)
    if not spec.problems:
        raise UserError(f"The evaluation on {spec.name!r} does not say how many problems; set `problems`.")
    return [task.problem(spec.split, 0, index) for index in range(spec.problems)]


def planned_questions(stage: EvalStage) -> tuple[list[Question], Sampling]:
    """All that a stage asks each remote model, and how."""
    asked: list[Question] = []
    for spec in stage.tasks:
        problems = problems_of(spec)
        asked += questions_of(problems, [(place, sample) for place in range(len(problems)) for sample in range(stage.samples_per_problem)])
    return asked, Sampling(stage.max_new_tokens, stage.temperature)


def label(spec: TaskSpec) -> str:
    """The task's name with the options that tell it from others of that name."""
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items() if key != "trace_options")
    return f"{spec.name} ({options})" if options else spec.name


def event_of(result: Result) -> dict[str, Any]:
    """A result as the record has it: flat, pass@1 as `accuracy` with `low` and `high`, and pass@k and cons@k by those names."""
    figures = result.model_dump(exclude={"pass_at_1", "pass_at_k", "cons_at_k", "pass_at"})
    event = {"accuracy": result.pass_at_1.value, "low": result.pass_at_1.low, "high": result.pass_at_1.high}
    several = {"pass": result.pass_at_k, "cons": result.cons_at_k}
    event |= {f"{name}@{result.k}": estimate.value for name, estimate in several.items() if estimate}
    return {**figures, "mean_length": result.tokens_per_answer, **event}


def _fill(name: str, spec: TaskSpec, stage: EvalStage, context: StageContext, engines: list[Engine]) -> AnswerFile:
    """Gets the answers of a model to a task that are not there yet. The model's engine is opened when it is first needed."""
    remote, task, problems = context.teachers.get(name), make(spec.name, **spec.options), problems_of(spec)
    path = None if remote else context.resolve(name)
    file = AnswerFile(context.directory / "answers", name, label(spec), _decisive(remote or path, spec, stage, context.seed))
    places = file.missing(problems, stage.samples_per_problem)
    if not places:
        return file
    sampling = Sampling(stage.max_new_tokens, stage.temperature)
    if remote:
        for answer in answer_there(remote, task, problems, places, sampling, context, label(spec)):
            file.add(answer)
        return file
    engine = _engine_of(name, stage, context, engines)
    tokens = cells = right = 0
    answers = answer_here(engine, task, problems, places, sampling, context.seed, context.ledger.price, stage.instruct)
    with context.progress(f"{name}, {label(spec)}", len(places)) as progress:
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


def _decisive(model: TeacherSpec | Path | None, spec: TaskSpec, stage: EvalStage, seed: int) -> dict[str, Any]:
    """All that decides an answer; of a local model the sizes and times of its files stand for its weights."""
    same = {"task": [spec.name, spec.options, spec.split], "max_new_tokens": stage.max_new_tokens, "temperature": stage.temperature}
    if isinstance(model, TeacherSpec):
        asked = {key: value for key, value in model.decisive.items() if key not in ("terms", "accept_terms")}
        return {**same, **asked, "instruction": INSTRUCTION}
    assert model is not None
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    weights = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
    return {**same, "files": weights, "dtype": stage.dtype, "seed": seed, "instruction": INSTRUCTION if stage.instruct else None}


def _evaluation(stage: EvalStage, context: StageContext, tables: dict[str, dict[str, Table]], texts: list[General]) -> Evaluation:
    results: list[Result] = []
    pairs: list[Pair] = []
    for spec in stage.tasks:
        votes, answers = has_votes(problems_of(spec)), tables[label(spec)]
        for name in stage.models:
            remote = context.teachers.get(name)
            currency = remote.price.currency if remote else None
            results.append(result_of(name, label(spec), answers[name], votes, context.ledger.price, currency))
        pairs += pairs_of(label(spec), answers)
    return Evaluation(
        date=datetime.now(UTC).isoformat(timespec="seconds"), spoutnik=context.lineage.get("spoutnik", "unknown"), seed=context.seed,
        temperature=stage.temperature, max_new_tokens=stage.max_new_tokens, dtype=stage.dtype,
        models=[_model(name, context) for name in stage.models],
        tasks=[Task(name=label(spec), split=spec.split, problems=spec.problems or 0) for spec in stage.tasks], results=results, pairs=pairs,
        texts=texts,
    )  # fmt: skip


def _model(name: str, context: StageContext) -> Model:
    remote = context.teachers.get(name)
    if remote is None:
        return Model(name=name, kind="local", id=str(context.resolve(name)))
    price = Price(**remote.price.model_dump())
    return Model(name=name, kind="remote", id=remote.model, dialect=remote.dialect, endpoint=remote.base_url, price=price)
