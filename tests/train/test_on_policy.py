"""Distillation on the student's own answers."""

import pytest
import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.distillation import DistillStage
from spoutnik.tasks import make
from spoutnik.teacher.local import LocalTeacher
from spoutnik.train.aligned import AlignedTeacher
from spoutnik.train.distill import run_distill
from spoutnik.train.on_policy import Teachers, on_policy_step
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import rollout_engine
from spoutnik.train.state import TrainState

TASK = {"name": "countdown", "numbers": [2], "high": 9}
SUMS = {"name": "arithmetic", "terms": [2], "high": 9}


def stage(**changes):
    settings = {"teacher": "t", "task": TASK, "prompts": 4, "max_new_tokens": 5, "temperature": 1.0, "steps": 12, "learning_rate": 3e-3}
    return DistillStage.model_validate({"name": "stage", "from": "s", "mode": "on-policy", **settings, **changes})


def opinionated(config, token):
    """A teacher with a preference that shows within a few steps."""
    teacher = CausalLM(config)
    initialise(teacher, seed=2)
    with torch.no_grad():
        teacher.lm_head.weight[token] += 0.3
        teacher.model.norm.weight.mul_(2)
    return teacher


@pytest.fixture
def align(tmp_path, model, tokenizer):
    def of(teacher, name="t"):
        save_checkpoint(teacher, tokenizer, tmp_path / name)
        return AlignedTeacher(LocalTeacher(name, tmp_path / name), tokenizer, model.config.vocab_size)

    return of


def test_the_student_approaches_the_teacher(config, model, tokenizer, context, align):
    state, teachers = (
        TrainState(model, Optimizer(model, 1e-2, 0.0)),
        Teachers(make("countdown", numbers=[2], high=9), [align(opinionated(config, 7))]),
    )
    engine = rollout_engine(model, tokenizer, 4)
    steps = [on_policy_step(state, stage(steps=20), teachers, engine, context) for _ in range(20)]
    distances = [step["reverse_kl"] for step in steps]
    assert all(distance > 0 for distance in distances)
    assert distances[-1] < 0.75 * distances[0]
    assert {step["compared"] for step in steps} == {1.0}
    assert state.step == 20


def test_a_student_that_is_its_teacher_has_nothing_to_learn(model, tokenizer, context, align):
    state = TrainState(model, Optimizer(model, 1e-3, 0.0))
    engine = rollout_engine(model, tokenizer, 4)
    metrics = on_policy_step(state, stage(), Teachers(make("countdown", numbers=[2], high=9), [align(model)]), engine, context)
    assert abs(metrics["reverse_kl"]) < 1e-6
    assert metrics["grad_norm"] < 1e-5


def test_each_part_of_a_mixture_has_its_own_teacher(config, model, tokenizer, context, align):
    """Of two teachers one is the student itself: only the other one's problems leave a gradient."""
    parts = [{**TASK, "weight": 1}, {**SUMS, "weight": 1}]
    task, engine = make("mixture", parts=parts), rollout_engine(model, tokenizer, 8)
    itself, other = align(model, "itself"), align(opinionated(config, 7), "other")
    found = {}
    for name, teachers in {"first": [other, itself], "second": [itself, other], "both": [other], "none": [itself]}.items():
        state = TrainState(model, Optimizer(model, 0.0, 0.0))
        changes = {"task": {"name": "mixture", "parts": parts}, "teacher": ["a", "b"], "prompts": 8}
        found[name] = on_policy_step(state, stage(**changes), Teachers(task, teachers), engine, context)["reverse_kl"]
    assert abs(found["none"]) < 1e-6 < min(found["first"], found["second"])
    assert found["first"] + found["second"] == pytest.approx(found["both"], rel=1e-5)


def test_a_stage_with_two_teachers_writes_a_checkpoint_that_differs(config, model, tokenizer, context, tmp_path):
    for name, made in (("student", model), ("one", opinionated(config, 7)), ("two", opinionated(config, 9))):
        save_checkpoint(made, tokenizer, tmp_path / name)
    before = model.lm_head.weight.detach().clone()
    task = {"name": "mixture", "parts": [TASK, SUMS]}
    changes = {"from": str(tmp_path / "student"), "teacher": [str(tmp_path / "one"), str(tmp_path / "two")], "task": task, "steps": 2}
    run_distill(stage(**changes), context)
    after = LocalTeacher("made", context.checkpoint_dir).model.lm_head.weight
    assert not torch.equal(before, after)
