"""The eval stage: every model on the same held-out problems, with intervals, and whether the thinking supports the answers.

Besides, what it makes of general text.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.evaluate.perplexity import perplexity
from spoutnik.evaluate.statistics import wilson
from spoutnik.model.flops import forward_flops
from spoutnik.recipe.schema import EvalStage, TaskSpec
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.train.rollouts import Rollout, sample_rollouts

MAX_BATCH = 128
SAMPLES_SHOWN = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class EvalState:
    """A step is one model on one task or one text."""

    step: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)


def run_eval(stage: EvalStage, context: StageContext) -> None:
    """Evaluates every model on every task and text; results go to the record and to eval.json in the stage's folder."""
    subjects: list[TaskSpec | str] = [*stage.tasks, *stage.texts]
    pairs = [(model, subject) for model in stage.models for subject in subjects]
    opened: dict[str, Engine] = {}

    def engine_of(name: str) -> Engine:
        """The model's engine for all its tasks, which stand next to each other; one model at a time is in memory."""
        if name not in opened:
            opened.clear()
            opened[name] = Engine(*open_model(context.resolve(name), DTYPES[stage.dtype], computing_device()), max_batch=MAX_BATCH)
        return opened[name]

    def advance(state: EvalState) -> dict[str, object]:
        name, spec = pairs[state.step]
        engine = engine_of(name)
        if isinstance(spec, str):
            return measure(state, engine, name, spec)
        rollouts = answer(engine, spec, stage.samples_per_problem, stage.temperature, stage.max_new_tokens, seed=context.seed)
        state.step += 1
        result = {"model": name, "task": label(spec), "split": spec.split, **summary(rollouts, stage.samples_per_problem)}
        state.results.append(result)
        context.log("eval", step=state.step, **result)
        for rollout in rollouts[:SAMPLES_SHOWN]:
            context.log(
                "sample", step=state.step, when="eval", model=name, prompt=rollout.problem.prompt, text=rollout.text,
                correct=bool(rollout.reward.accuracy),
            )  # fmt: skip
        cells = sum(len(rollout.prompt_ids) + len(rollout.token_ids) for rollout in rollouts)
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)
        context.ledger.add(tokens, forward_flops(engine.model.config, cells, cells // len(rollouts)))
        return {"accuracy": result["accuracy"]}

    def measure(state: EvalState, engine: Engine, name: str, text: str) -> dict[str, object]:
        """The perplexity of one text."""
        result = {"model": name, "text": text, **perplexity(engine, text, stage.text_characters)}
        state.step += 1
        state.results.append(result)
        context.log("perplexity", step=state.step, **result)
        context.ledger.add(result["tokens"], forward_flops(engine.model.config, result["tokens"], result["tokens"] / result["windows"] / 2))
        return {"nats_per_token": result["nats_per_token"]}

    state = run_stage(context, len(pairs), EvalState, advance, _save, _load)
    (context.directory / "eval.json").write_text(json.dumps(state.results, indent=2) + "\n", encoding="utf-8")


def answer(engine: Engine, spec: TaskSpec, samples: int, temperature: float, max_new_tokens: int, seed: int) -> list[Rollout]:
    """A model's graded answers to `spec.problems` problems. Problems are drawn with seed 0, so that every run sees the same ones."""
    task = make(spec.name, **spec.options)
    if not spec.problems:
        raise UserError(f"The evaluation on {spec.name!r} does not say how many problems; set `problems`.")
    problems = [task.problem(spec.split, 0, index) for index in range(spec.problems)]
    return sample_rollouts(engine, task, problems, samples, temperature, max_new_tokens, seed)


def summary(rollouts: list[Rollout], samples: int = 1) -> dict[str, Any]:
    """Accuracy with its Wilson interval, format, length, and how well the thinking holds; `samples` answers were given to each problem.

    The interval counts problems, not answers: several answers to one problem are not independent.
    `faithful_steps`: share of written sums that are right. `supported`: share of correct answers that a right written sum reaches.
    """
    n, correct = len(rollouts), sum(rollout.reward.accuracy > 0 for rollout in rollouts)
    low, high = wilson(correct / samples, n // samples)
    written, right = sum(rollout.steps for rollout in rollouts), sum(rollout.right_steps for rollout in rollouts)
    supported = sum(rollout.supported for rollout in rollouts if rollout.reward.accuracy)
    return {
        "n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high,
        "format": sum(rollout.reward.format for rollout in rollouts) / n,
        "mean_length": sum(len(rollout.token_ids) for rollout in rollouts) / n,
        "truncated": sum(rollout.truncated for rollout in rollouts) / n,
        "faulted": sum(rollout.reward.faulted for rollout in rollouts),
        "faithful_steps": right / written if written else None,
        "supported": supported / correct if correct else None,
    }  # fmt: skip


def label(spec: TaskSpec) -> str:
    """The task's name with the options that tell it from others of that name."""
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items() if key != "trace_options")
    return f"{spec.name} ({options})" if options else spec.name


def _save(state: EvalState, folder: Path) -> None:
    (folder / "eval.json").write_text(json.dumps(state.results), encoding="utf-8")


def _load(folder: Path) -> EvalState:
    results = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    return EvalState(len(results), results)
