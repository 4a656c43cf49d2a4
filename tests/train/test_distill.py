"""Distillation on the student's own samples."""

import pytest
import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import DistillStage
from spoutnik.tasks import make
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.distill import on_policy_step, run_distill
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import rollout_engine
from spoutnik.train.state import TrainState

TASK = {"name": "countdown", "numbers": [2], "high": 9}


def stage(**changes):
    settings = {"teacher": "t", "task": TASK, "prompts": 4, "max_new_tokens": 5, "temperature": 1.0, "steps": 12, "learning_rate": 3e-3}
    return DistillStage.model_validate({"name": "stage", "from": "s", "mode": "on-policy", **settings, **changes})


def test_the_student_approaches_the_teacher(config, model, tokenizer, context):
    teacher = CausalLM(config)
    initialise(teacher, seed=2)
    with torch.no_grad():
        teacher.lm_head.weight[7] += 0.3  # a preference that shows within a few steps
        teacher.model.norm.weight.mul_(2)
    teacher.requires_grad_(False)
    state, task = TrainState(model, Optimizer(model, 1e-2, 0.0)), make("countdown", numbers=[2], high=9)
    engine = rollout_engine(model, tokenizer, 4)
    distances = [on_policy_step(state, teacher, stage(steps=20), task, engine, context)["reverse_kl"] for _ in range(20)]
    assert all(distance > 0 for distance in distances)
    assert distances[-1] < 0.75 * distances[0]
    assert state.step == 20


def test_a_student_that_is_its_teacher_has_nothing_to_learn(model, tokenizer, context):
    state = TrainState(model, Optimizer(model, 1e-3, 0.0))
    engine = rollout_engine(model, tokenizer, 4)
    metrics = on_policy_step(state, model, stage(), make("countdown", numbers=[2], high=9), engine, context)
    assert abs(metrics["reverse_kl"]) < 1e-6
    assert metrics["grad_norm"] < 1e-5


def test_another_tokenizer_is_refused_before_anything_is_sampled(config, model, tokenizer, context, tmp_path):
    other = train_bpe(["another text, other merges " * 5], 300, digits=3)
    save_checkpoint(model, tokenizer, tmp_path / "student")
    save_checkpoint(model, other, tmp_path / "teacher")
    with pytest.raises(UserError, match=r"different tokenizers.*mode = 'samples'"):
        run_distill(stage(**{"from": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher")}), context)
    assert not context.record.path.exists()


def test_a_teacher_with_more_logits_is_refused_too(config, model, tokenizer, context, tmp_path):
    teacher = CausalLM(config.with_(vocab_size=config.vocab_size + 4))
    initialise(teacher, seed=2)
    save_checkpoint(model, tokenizer, tmp_path / "student")
    save_checkpoint(teacher, tokenizer, tmp_path / "teacher")
    with pytest.raises(UserError, match=r"300 logits, the teacher .* 304"):
        run_distill(stage(**{"from": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher")}), context)
