"""Rejection sampling: a model answers training problems, and only what the verifier accepts becomes data (R1, section 2.3.3)."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.checkpoint.load import open_model
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops
from spoutnik.recipe.schema import SampleStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Task
from spoutnik.train.rollouts import Rollout, rollout_engine, rollout_metrics, sample_rollouts
from spoutnik.train.state import stream_seed

CHUNK = 128


@dataclass
class SampleState:
    """The kept samples so far; a step is a chunk of problems."""

    step: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)


def run_sample(stage: SampleStage, context: StageContext) -> None:
    """Writes samples.jsonl (`prompt`, `completion` and what is known of it), at most one sample a problem unless `keep` is all."""
    model, tokenizer = open_model(context.resolve(stage.from_))
    task = make(stage.task.name, **stage.task.options)
    engine = rollout_engine(model, tokenizer, CHUNK * stage.samples_per_problem, stage.dtype)

    def advance(state: SampleState) -> dict[str, object]:
        first = state.step * CHUNK
        indices = range(first, min(first + CHUNK, stage.problems))
        problems = [task.problem(stage.task.split, context.seed, index) for index in indices]
        rollouts = sample_rollouts(
            engine, task, problems, stage.samples_per_problem, stage.temperature, stage.max_new_tokens,
            stream_seed(context.seed, state.step),
        )  # fmt: skip
        for place in range(len(problems)):
            state.rows += kept(task, rollouts[place * stage.samples_per_problem : (place + 1) * stage.samples_per_problem], stage)
        state.step += 1
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)
        cells = tokens + sum(len(rollout.prompt_ids) for rollout in rollouts)
        context.ledger.add(tokens, forward_flops(model.config, cells, cells // len(rollouts)))
        return {**rollout_metrics(rollouts), "kept": len(state.rows), "tokens": tokens}

    state = run_stage(context, -(-stage.problems // CHUNK), SampleState, advance, _save, _load)
    if not state.rows:
        raise UserError(
            f"Stage {stage.name!r} kept none of {stage.problems * stage.samples_per_problem} samples; "
            f"the model {stage.from_!r} cannot do the task yet: train it longer, sample more, or loosen `keep`."
        )
    _write(state.rows, context.directory / "samples.jsonl")


def kept(task: Task, rollouts: Sequence[Rollout], stage: SampleStage) -> list[dict[str, object]]:
    """What a problem's samples leave: all, or the first or shortest that is right, well-formed and (if asked) faithful; or a pair."""
    if stage.keep == "all":
        return [_row(rollout) for rollout in rollouts]
    if stage.keeps_pairs:
        return pair(rollouts, right_and_wrong=stage.keep == "pairs")
    good = [rollout for rollout in rollouts if rollout.reward.accuracy and rollout.reward.format]
    if stage.keep == "correct-and-faithful":
        good = [rollout for rollout in good if is_faithful(rollout)]
    good = sorted(good, key=lambda rollout: len(rollout.token_ids)) if stage.prefer == "shortest" else good
    return [_row(rollout) for rollout in good[:1]]


def pair(rollouts: Sequence[Rollout], right_and_wrong: bool) -> list[dict[str, object]]:
    """The answer that earned most against the one that earned least, the first of equals; none where the verifier said nothing of a sample.

    With `right_and_wrong` there is a pair only where one is right and the other wrong; else any two different texts make one.
    """
    judged = [rollout for rollout in rollouts if not rollout.reward.faulted]
    if not judged:
        return []
    best, worst = max(judged, key=_earned), min(reversed(judged), key=_earned)
    if best.text == worst.text or (right_and_wrong and best.reward.accuracy == worst.reward.accuracy):
        return []
    problem = best.problem
    return [
        {"prompt": problem.prompt, "chosen": best.text, "rejected": worst.text, "task": problem.task, "seed": problem.seed,
         "index": problem.index}
    ]  # fmt: skip


def _earned(rollout: Rollout) -> tuple[float, float, float]:
    return rollout.reward.accuracy, rollout.reward.format, rollout.reward.language


def is_faithful(rollout: Rollout) -> bool:
    """Every written sum is right, one of them reaches the value of the answer, and no line stands twice.

    Who tries the same thing again has not read what the first try gave; R1's filter dropped unreadable thinking for the like reason.
    """
    lines = [line for line in rollout.text.splitlines() if line.strip()]
    return 0 < rollout.steps == rollout.right_steps and rollout.supported and len(set(lines)) == len(lines)


def _row(rollout: Rollout) -> dict[str, object]:
    problem = rollout.problem
    return {
        "prompt": problem.prompt, "completion": rollout.text, "task": problem.task, "seed": problem.seed, "index": problem.index,
        "correct": bool(rollout.reward.accuracy), "steps": rollout.steps, "right_steps": rollout.right_steps,
    }  # fmt: skip


def _save(state: SampleState, folder: Path) -> None:
    _write(state.rows, folder / "samples.jsonl")
    (folder / "step.json").write_text(json.dumps(state.step), encoding="utf-8")


def _load(folder: Path) -> SampleState:
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]  # not splitlines: JSON strings may hold U+2028
    return SampleState(json.loads((folder / "step.json").read_text(encoding="utf-8")), [json.loads(line) for line in lines])


def _write(rows: Sequence[dict[str, object]], path: Path) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
