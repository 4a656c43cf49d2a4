"""Rejection sampling: a model answers training problems, and only what the verifier accepts becomes data (R1, section 2.3.3)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.model.flops import forward_flops
from spoutnik.recipe.schema import SampleStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.train.kept import kept, nothing_kept, write_rows
from spoutnik.train.rollouts import rollout_engine, rollout_metrics, sample_rollouts
from spoutnik.train.state import stream_seed
from spoutnik.train.taught import sample_teacher

CHUNK = 128


@dataclass
class SampleState:
    """The kept samples so far; a step is a chunk of problems."""

    step: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)


def run_sample(stage: SampleStage, context: StageContext) -> None:
    """Writes samples.jsonl (`prompt`, `completion` and what is known of it), at most one sample a problem unless `keep` is all."""
    if stage.from_ in context.teachers:
        sample_teacher(stage, context)
        return
    model, tokenizer = open_model(context.resolve(stage.from_), device=computing_device())
    teachers = context.lineage.get("teachers", [])
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
            state.rows += kept(rollouts[place * stage.samples_per_problem : (place + 1) * stage.samples_per_problem], stage, teachers)
        state.step += 1
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)
        cells = tokens + sum(len(rollout.prompt_ids) for rollout in rollouts)
        context.ledger.add(tokens, forward_flops(model.config, cells, cells // len(rollouts)))
        return {**rollout_metrics(rollouts), "kept": len(state.rows), "tokens": tokens}

    state = run_stage(context, -(-stage.problems // CHUNK), SampleState, advance, _save, _load)
    if not state.rows:
        raise nothing_kept(stage, "train it longer")
    write_rows(state.rows, context.directory / "samples.jsonl")


def _save(state: SampleState, folder: Path) -> None:
    write_rows(state.rows, folder / "samples.jsonl")
    (folder / "step.json").write_text(json.dumps(state.step), encoding="utf-8")


def _load(folder: Path) -> SampleState:
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]  # not splitlines: JSON strings may hold U+2028
    return SampleState(json.loads((folder / "step.json").read_text(encoding="utf-8")), [json.loads(line) for line in lines])
