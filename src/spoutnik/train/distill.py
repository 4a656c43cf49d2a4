"""Distillation: a student learns from a teacher's verified answers (samples), from its distributions over given answers (logits), or from
its distributions over the student's own answers (on-policy). The fourth way, a judge's choice, is a stage of its own: see judged.py."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.distillation import DistillStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.teacher.base import Distributions
from spoutnik.teacher.local import LocalTeacher
from spoutnik.teacher.stored import StoredLogits, digest
from spoutnik.teacher.translated import translate
from spoutnik.text.alignment import SharedTokens, shared_tokens
from spoutnik.text.chatml import CHATML_THINKING
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.algorithms.given import distributions_over_given
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.examples import Example, batch_of, collate, read_examples
from spoutnik.train.losses import forward_kl
from spoutnik.train.on_policy import run_on_policy
from spoutnik.train.optim import Optimizer
from spoutnik.train.schedule import factor
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in, placed
from spoutnik.train.sft import imitate_samples
from spoutnik.train.state import TrainState, load_state, save_state
from spoutnik.train.update import apply_update


def run_distill(stage: DistillStage, context: StageContext) -> None:
    """Teaches the model `from` in the stage's mode and writes it as a Hugging Face directory."""
    if stage.mode == "on-policy":
        run_on_policy(stage, context)
    elif stage.mode == "logits":
        _run_logits(stage, context)
    else:
        assert stage.data is not None, "the schema asks for it"
        assert stage.batch_size is not None, "the schema asks for it"
        template = CHATML_THINKING if stage.chat_template == "thinking" else None
        imitate_samples(stage, context.resolve(stage.from_), context.resolve(stage.data), stage.batch_size, context, template)


@dataclass(frozen=True)
class AlignedExample:
    """An answer as the student reads it, and as the teacher does: token for token the same."""

    student: Example
    teacher: Example

    @property
    def ids(self) -> list[int]:
        return self.student.ids


@dataclass(frozen=True)
class Supervision:
    """Answers and who says how likely their tokens are; `shared` where its ids are not the student's."""

    examples: list[AlignedExample]
    teacher: Distributions
    shared: SharedTokens | None = None


def _run_logits(stage: DistillStage, context: StageContext) -> None:
    model, tokenizer = open_model(context.resolve(stage.from_), device=computing_device())
    supervision = prepare(stage, model, tokenizer, context)

    def start() -> TrainState:
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay))

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    state = run_stage(context, stage.steps, start, lambda state: logits_step(state, stage, supervision, context), save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def prepare(stage: DistillStage, model: CausalLM, tokenizer: Tokenizer, context: StageContext) -> Supervision:
    """The stage's data with its teacher, here or on disk. Raises UserError where their tokens are not the student's."""
    assert stage.data is not None, "the schema asks for it"
    data, longest = context.resolve(stage.data), model.config.max_position_embeddings
    if not stage.teachers:
        return _stored(StoredLogits(data), model, tokenizer)
    teacher = LocalTeacher(stage.teachers[0], context.resolve(stage.teachers[0]))
    examples = read_examples(data, tokenizer, longest)
    same = teacher.fingerprint == tokenizer.fingerprint()
    if same and teacher.vocab_size == model.config.vocab_size:
        return Supervision([AlignedExample(example, example) for example in examples], teacher)
    shared = shared_tokens(tokenizer, teacher.tokenizer)
    theirs = examples if same else read_examples(data, teacher.tokenizer, teacher.model.config.max_position_embeddings)
    if shared is None or not _one_to_one(examples, theirs, shared):
        raise UserError(
            f"The student {stage.from_!r} and the teacher {teacher.name!r} cut the answers in {stage.data!r} into different tokens, so "
            "distributions cannot be compared token by token; use mode = 'on-policy', which compares stretches of text, or 'samples'."
        )
    return Supervision([AlignedExample(ours, other) for ours, other in zip(examples, theirs, strict=True)], teacher, shared)


def _stored(stored: StoredLogits, model: CausalLM, tokenizer: Tokenizer) -> Supervision:
    if stored.fingerprint != tokenizer.fingerprint() or stored.template != digest(tokenizer.chat_template):
        what = "tokenizer" if stored.fingerprint != tokenizer.fingerprint() else "chat template"
        raise UserError(
            f"The distributions in {stored.folder} were written with another {what} than the student's; name the `teacher` itself with the "
            "answers as `data`, or use mode = 'samples'."
        )
    if stored.vocab_size > model.config.vocab_size:
        raise UserError(
            f"The distributions in {stored.folder} are over {stored.vocab_size} tokens, the student has {model.config.vocab_size} logits; "
            "name the `teacher` itself with the answers as `data`, or use mode = 'samples'."
        )
    examples = [Example(*stored.sequence(index)) for index in range(len(stored))]
    return Supervision([AlignedExample(example, example) for example in examples], stored)


def _one_to_one(ours: Sequence[Example], theirs: Sequence[Example], shared: SharedTokens) -> bool:
    ids = dict(zip(shared.ours, shared.theirs, strict=True))
    return all(
        [ids.get(token) for token in our.ids[our.answer_start :]] == their.ids[their.answer_start :]
        for our, their in zip(ours, theirs, strict=True)
    )


def logits_step(state: TrainState, stage: DistillStage, supervision: Supervision, context: StageContext) -> dict[str, object]:
    """One optimiser step on `batch_size` answers."""
    began = time.perf_counter()
    batch = batch_of(supervision.examples, state.step, stage.batch_size or 1, context.seed)
    ours, theirs = ([getattr(example, whose) for example in batch] for whose in ("student", "teacher"))
    ids_BT, mask_BT = collate([example.ids for example in ours], [example.answer_start for example in ours], device=state.device)
    asked_BT = collate([example.ids for example in theirs], [example.answer_start for example in theirs], device=state.device)
    with computed_in(stage.dtype, ids_BT):
        said = supervision.teacher.logprobs(*asked_BT)
        student_NV = answer_logits(state.model, ids_BT, mask_BT).float()
    if supervision.shared is not None:
        assert isinstance(said, torch.Tensor), "only a teacher that is here has other ids"
        said = translate(said, supervision.shared, student_NV.shape[-1])
    logprobs_BT = answer_logprobs(student_NV, ids_BT, mask_BT)
    loss = objective(distributions_over_given(mask_BT), logprobs_BT, divergence_BT=placed(forward_kl(student_NV, said), mask_BT))
    loss.backward()
    scale = factor(stage.schedule, state.step, stage.steps, stage.warmup)
    norm = apply_update(state, loss.item(), scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    state.step += 1
    tokens = sum(len(example.ids) for example in batch)
    asked = (
        forward_flops(supervision.teacher.model.config, tokens, ids_BT.shape[1]) if isinstance(supervision.teacher, LocalTeacher) else 0.0
    )
    context.ledger.add(tokens, training_flops(state.model.config, tokens, ids_BT.shape[1]) + asked)
    nats = -float((logprobs_BT.detach() * mask_BT).sum() / mask_BT.sum())
    return {
        "forward_kl": loss.item(), "loss": nats, "grad_norm": norm, "learning_rate": state.optimizer.learning_rate * scale,
        "tokens": tokens, "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip
