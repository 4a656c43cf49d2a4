"""Reinforcement learning and distillation: R1-Zero's run, the long tail of a rollout, and the three ways to distil."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import chip
from spoutnik.plan.distillation import Lesson, plan_distillation
from spoutnik.plan.models import open_model
from spoutnik.plan.reinforcement import Campaign, plan_reinforcement

ZERO = Campaign(10_400, 32, 16, 8000, 32_768, minibatches=16)
"""R1-Zero as disclosed, with an assumed mean length."""


def rl(campaign, devices=512, model="deepseek-v3", name="h800-sxm"):
    return plan_reinforcement(open_model(model), model, chip(name), devices, campaign, Rent(2.0))


def test_the_range_for_r1_zero_holds_its_gpu_hours():
    hours = rl(ZERO).figures["gpu_hours"].value.range()
    assert hours.p10 < 198 * 512 < hours.p90


def test_a_rollout_waits_for_its_longest_answer():
    short, long = (rl(Campaign(100, 32, 16, 1000, longest)).all_figures()["1.rollout_seconds"].middle for longest in (2000, 32_768))
    assert long > 10 * short


def test_reference_and_old_policy_add_a_third_of_an_update_each():
    def update(**switches):
        return rl(Campaign(100, 32, 16, 1000, 2000, **switches)).all_figures()["2.update_hours"].middle

    both, none, one = update(), update(reference=False, old=False), update(old=False)
    assert both == pytest.approx(5 / 3 * none)
    assert one == pytest.approx(4 / 3 * none)


def test_lines_add_up_to_the_total():
    plan = rl(ZERO)
    total = sum((line.figures["gpu_hours"].value for line in plan.lines[1:]), start=plan.lines[0].figures["gpu_hours"].value)
    assert (total - plan.figures["gpu_hours"].value).range().p90 == pytest.approx(0, abs=1e-6)
    assert plan.figures["cost_usd"].middle == pytest.approx(2 * plan.figures["gpu_hours"].middle)


@pytest.mark.parametrize(("campaign", "devices", "words"), [
    (ZERO, 8, r"takes 8,052 GB .* have 640; give --devices 101 or more"),
    (Campaign(10, 8, 8, 179_400, 179_400), 128, "do not hold one copy .*--devices 256 or more"),
])  # fmt: skip
def test_too_few_devices_are_refused_with_how_many_would_do(campaign, devices, words):
    with pytest.raises(UserError, match=words):
        rl(campaign, devices)


def test_one_rollout_cannot_feed_more_updates_than_there_are():
    with pytest.raises(UserError, match=r"16 updates of one rollout are more than --steps 10"):
        Campaign(10, 8, 8, 100, 200, minibatches=16)


def test_a_device_holds_weights_and_cache_while_it_samples():
    plan = rl(ZERO)
    assert set(plan.memory) == {"weights", "cache"}
    assert sum(plan.memory.values()) == pytest.approx(plan.figures["memory_gib_per_device"].value * 2**30)
    assert sum(plan.memory.values()) <= 0.9 * 80e9


def test_answers_longer_than_the_longest_are_refused():
    with pytest.raises(UserError, match="raise --max-length"):
        Campaign(10, 8, 8, 1000, 200)


def distil(mode, student="qwen2.5-7b", teacher="deepseek-v3", devices=64, **values):
    lesson = Lesson(mode, 800e3, 4000, **values)
    return plan_distillation(open_model(teacher), open_model(student), mode, chip("h800-sxm"), devices, lesson, Rent(2.0))


def test_what_is_thrown_away_is_paid_for_by_the_teacher_alone():
    all_kept, half = distil("samples"), distil("samples", kept=0.5)
    assert half.lines[0].figures["gpu_hours"].middle == pytest.approx(2 * all_kept.lines[0].figures["gpu_hours"].middle)
    assert half.lines[1].figures["gpu_hours"].middle == pytest.approx(all_kept.lines[1].figures["gpu_hours"].middle)


def test_modes_have_their_lines():
    names = {mode: [line.name for line in distil(mode, "qwen2.5-7b", "qwen2.5-72b").lines] for mode in ("samples", "logits", "on-policy")}
    assert names["samples"] == ["teacher_writes", "student_learns"]
    assert names["logits"] == ["teacher_reads", "student_learns"]
    assert names["on-policy"] == ["student_writes", "teacher_reads", "student_learns"]


def test_reading_costs_less_than_writing_and_logits_say_how_much_disk():
    writes = distil("samples", "qwen2.5-7b", "qwen2.5-72b").lines[0].figures["gpu_hours"].middle
    reads = distil("logits", "qwen2.5-7b", "qwen2.5-72b")
    assert reads.lines[0].figures["gpu_hours"].middle < writes
    assert reads.figures["stored_bytes"].value == pytest.approx(800e3 * 4000 * 298)


@pytest.mark.parametrize(("mode", "words"), [("osmosis", "samples, logits, on-policy"), ("logits", "use --mode samples")])
def test_impossible_lessons_are_refused(mode, words):
    with pytest.raises(UserError, match=words):
        distil(mode)


def test_only_what_the_teacher_writes_can_be_thrown_away():
    with pytest.raises(UserError, match="--mode logits has it write nothing"):
        Lesson("logits", 1e3, 1e3, kept=0.5)


@pytest.mark.parametrize(("student", "devices", "words"), [
    ("qwen2.5-7b", 8, "--devices 16 or more"),
    ("llama-3.1-405b", 32, r"4,870 GB .* give --devices 61 or more"),
])  # fmt: skip
def test_a_lesson_needs_devices_that_hold_the_teacher_and_train_the_student(student, devices, words):
    with pytest.raises(UserError, match=words):
        distil("samples", student, devices=devices)


def test_a_teacher_has_no_more_devices_than_there_are_and_without_a_number_those_that_suit_it():
    few, many, suited = (distil("samples", devices=devices).figures for devices in (16, 64, None))
    assert few["gpu_hours"].middle > many["gpu_hours"].middle == suited["gpu_hours"].middle
    assert suited["days"].middle == pytest.approx(suited["gpu_hours"].middle / 24 / 32)
    assert few["memory_gib_per_device"].value > 60
