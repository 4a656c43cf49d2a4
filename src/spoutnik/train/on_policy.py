"""On-policy distillation: the student answers, and every token it wrote is pulled towards what its teacher would have written there."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.engine.generator import Engine
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.recipe.distillation import DistillStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.mixture import Mixture
from spoutnik.teacher.local import LocalTeacher
from spoutnik.train.algorithms.on_policy import FREE, on_policy_distillation
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.aligned import AlignedTeacher, Pull
from spoutnik.train.examples import collate
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import Rollout, rollout_engine, rollout_metrics, sample_rollouts
from spoutnik.train.schedule import factor
from spoutnik.train.scoring import answer_logits, answer_logprobs, answer_places, computed_in, placed
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed
from spoutnik.train.update import apply_update


@dataclass(frozen=True)
class Teachers:
    """The teachers of a stage: one for every problem, or one for each part of a mixture, in its order."""

    task: Task
    aligned: list[AlignedTeacher]

    def place(self, problem: Problem) -> int:
        """Whose problem it is."""
        return self.task.place(problem) if len(self.aligned) > 1 and isinstance(self.task, Mixture) else 0


def run_on_policy(stage: DistillStage, context: StageContext) -> None:
    """Teaches the model `from` on its own answers and writes it as a Hugging Face directory."""
    assert stage.task is not None, "the schema asks for it"
    student, tokenizer = open_model(context.resolve(stage.from_), device=computing_device())
    opened = {name: LocalTeacher(name, context.resolve(name)) for name in dict.fromkeys(stage.teachers)}
    taught = {name: AlignedTeacher(teacher, tokenizer, student.config.vocab_size) for name, teacher in opened.items()}
    teachers = Teachers(make(stage.task.name, **stage.task.options), [taught[name] for name in stage.teachers])
    engine = rollout_engine(student, tokenizer, stage.prompts or 1, stage.dtype)

    def start() -> TrainState:
        return TrainState(student, Optimizer(student, stage.learning_rate, stage.weight_decay))

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    def advance(state: TrainState) -> dict[str, object]:
        return on_policy_step(state, stage, teachers, engine, context)

    state = run_stage(context, stage.steps, start, advance, save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def on_policy_step(state: TrainState, stage: DistillStage, teachers: Teachers, engine: Engine, context: StageContext) -> dict[str, object]:
    """The student answers `prompts` fresh problems once each and takes one optimiser step. `engine` is the student's."""
    split = stage.task.split if stage.task else "train"
    prompts, longest, temperature = stage.prompts or 0, stage.max_new_tokens or 0, stage.temperature or 1.0
    began, step, model = time.perf_counter(), state.step, state.model
    problems = [teachers.task.problem(split, context.seed, step * prompts + place) for place in range(prompts)]
    engine.refresh()
    rollouts = sample_rollouts(engine, teachers.task, problems, 1, temperature, longest, stream_seed(context.seed, step))
    texts, starts = [[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts]
    ids_BT, mask_BT = collate(texts, starts, device=state.device)
    with computed_in(stage.dtype, ids_BT):
        student_NV = answer_logits(model, ids_BT, mask_BT).float()
        logprobs_BT = answer_logprobs(student_NV, ids_BT, mask_BT)
        pull = _ask(teachers, rollouts, student_NV, logprobs_BT[answer_places(mask_BT)])
    counted_BT = placed(pull.counted.float(), mask_BT)
    streams = on_policy_distillation(counted_BT, placed(pull.advantages, mask_BT))
    loss = objective(streams, logprobs_BT, logprobs_BT - logprobs_BT.detach(), FREE, placed(pull.divergence, mask_BT))
    loss.backward()
    scale = factor(stage.schedule, step, stage.steps, stage.warmup)
    norm = apply_update(state, loss.item(), scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    state.step += 1
    cells = sum(len(r.prompt_ids) + len(r.token_ids) for r in rollouts)
    mean, tokens = cells // len(rollouts), float(mask_BT.sum())
    context.ledger.add(int(tokens), forward_flops(model.config, cells, mean) + training_flops(model.config, cells, mean))
    for rollout in rollouts:
        teacher = teachers.aligned[teachers.place(rollout.problem)].teacher
        length = len(rollout.prompt_ids) + len(rollout.token_ids)
        context.ledger.add(0, forward_flops(teacher.model.config, length, length))
    return {
        "reverse_kl": float(pull.estimate.sum() / counted_BT.sum().clamp(min=1)), "compared": float(counted_BT.sum()) / tokens,
        **rollout_metrics(rollouts), "grad_norm": norm, "learning_rate": state.optimizer.learning_rate * scale,
        "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip


def _ask(teachers: Teachers, rollouts: Sequence[Rollout], student_NV: torch.Tensor, logprobs_N: torch.Tensor) -> Pull:
    """What each answer's own teacher says of it."""
    places = [teachers.place(rollout.problem) for rollout in rollouts]
    owner_N = torch.tensor([place for place, rollout in zip(places, rollouts, strict=True) for _ in rollout.token_ids]).to(
        logprobs_N.device
    )
    empty = torch.zeros_like(logprobs_N)
    whole = Pull(empty, empty, torch.zeros_like(owner_N, dtype=torch.bool), empty)
    for place in sorted(set(places)):
        own_N = owner_N == place
        asked = [rollout for rollout, owner in zip(rollouts, places, strict=True) if owner == place]
        found = teachers.aligned[place].pull(asked, student_NV[own_N], logprobs_N[own_N])
        whole = Pull(*(getattr(whole, name).masked_scatter(own_N, getattr(found, name)) for name in Pull.__dataclass_fields__))
    return whole
