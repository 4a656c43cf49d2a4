"""Distillation: a student learns from a teacher's verified answers (samples), or on its own answers from the teacher's distribution."""

import time
from pathlib import Path

import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import DistillStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Task
from spoutnik.text.chatml import CHATML_THINKING
from spoutnik.train.algorithms.on_policy import on_policy_distillation
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.examples import collate
from spoutnik.train.losses import reverse_kl
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import rollout_engine, rollout_metrics, sample_rollouts
from spoutnik.train.schedule import factor
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in
from spoutnik.train.sft import imitate_samples
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed
from spoutnik.train.update import apply_update


def run_distill(stage: DistillStage, context: StageContext) -> None:
    """Teaches the model `from` in the stage's mode and writes it as a Hugging Face directory."""
    if stage.mode == "samples":
        assert stage.data is not None, "the schema asks for it"
        assert stage.batch_size is not None, "the schema asks for it"
        imitate_samples(stage, context.resolve(stage.from_), context.resolve(stage.data), stage.batch_size, context, _template(stage))
    else:
        _run_on_policy(stage, context)


def _template(stage: DistillStage) -> str | None:
    return CHATML_THINKING if stage.chat_template == "thinking" else None


def _run_on_policy(stage: DistillStage, context: StageContext) -> None:
    assert stage.teacher is not None, "the schema asks for it"
    assert stage.task is not None, "the schema asks for it"
    task, student_path = make(stage.task.name, **stage.task.options), context.resolve(stage.from_)
    teacher, teacher_tokenizer = open_model(context.resolve(stage.teacher))
    student, tokenizer = open_model(student_path)
    if tokenizer.fingerprint() != teacher_tokenizer.fingerprint():
        raise UserError(
            f"The student {stage.from_!r} and the teacher {stage.teacher!r} have different tokenizers, so their distributions cannot be "
            "compared token by token; use mode = 'samples', or a student with the teacher's tokenizer."
        )
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"The student {stage.from_!r} has {student.config.vocab_size} logits, the teacher {stage.teacher!r} "
            f"{teacher.config.vocab_size}: their embeddings are padded differently; use mode = 'samples'."
        )
    teacher.requires_grad_(False)
    engine = rollout_engine(student, tokenizer, stage.prompts or 1, stage.dtype)

    def start() -> TrainState:
        return TrainState(student, Optimizer(student, stage.learning_rate, stage.weight_decay))

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    def advance(state: TrainState) -> dict[str, object]:
        return on_policy_step(state, teacher, stage, task, engine, context)

    state = run_stage(context, stage.steps, start, advance, save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def on_policy_step(
    state: TrainState, teacher: CausalLM, stage: DistillStage, task: Task, engine: Engine, context: StageContext
) -> dict[str, object]:
    """The student answers `prompts` fresh problems once each; every token it wrote is pulled towards the teacher's distribution.

    `engine` is the student's.
    """
    split = stage.task.split if stage.task else "train"
    prompts, longest, temperature = stage.prompts or 0, stage.max_new_tokens or 0, stage.temperature or 1.0
    began, step, model = time.perf_counter(), state.step, state.model
    problems = [task.problem(split, context.seed, step * prompts + place) for place in range(prompts)]
    seed = stream_seed(context.seed, step)
    engine.refresh()
    rollouts = sample_rollouts(engine, task, problems, 1, temperature, longest, seed)
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    with computed_in(stage.dtype, ids_BT):
        with torch.no_grad():
            teacher_NV = answer_logits(teacher, ids_BT, mask_BT).float()
        student_NV = answer_logits(model, ids_BT, mask_BT).float()
    logprobs_BT = answer_logprobs(student_NV, ids_BT, mask_BT)
    divergence_BT = torch.zeros_like(mask_BT).masked_scatter(mask_BT > 0, reverse_kl(student_NV, teacher_NV))
    tokens = float(mask_BT.sum())
    loss = objective(on_policy_distillation(mask_BT), logprobs_BT, divergence_BT=divergence_BT)
    loss.backward()
    scale = factor(stage.schedule, step, stage.steps, stage.warmup)
    norm = apply_update(state, loss.item(), scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    state.step += 1
    cells = sum(len(r.prompt_ids) + len(r.token_ids) for r in rollouts)
    mean = cells // len(rollouts)
    flops = (
        forward_flops(model.config, cells, mean) + training_flops(model.config, cells, mean) + forward_flops(teacher.config, cells, mean)
    )
    context.ledger.add(int(tokens), flops)
    return {
        "reverse_kl": loss.item(), **rollout_metrics(rollouts), "grad_norm": norm,
        "learning_rate": state.optimizer.learning_rate * scale, "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip
