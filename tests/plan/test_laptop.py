"""Predictions grow with the work, shrink with the machine's speed, and are as uncertain as what is not known beforehand."""

from dataclasses import replace

import pytest

from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import training_flops
from spoutnik.plan.laptop import (
    PROBED,
    Factors,
    Shares,
    as_it_was,
    fitted,
    predict,
    terms,
    total,
)
from spoutnik.plan.probe import Probe
from spoutnik.plan.taken import Taken
from spoutnik.plan.work import Answers, Length, Readings, StageWork, Updates

PROBE = Probe("here", "2026-01-01", 2e11, 1e12, 1e11, 1e10, 0.02, 1e9, 2e9)
FAST = replace(
    PROBE, gemm_float32=4e11, gemm_bfloat16=2e12, gemm_small=2e11, bandwidth=2e10, small_step=0.01, disk_write=2e9, disk_read=4e9
)
FACTORS = Factors("2026-01-01", "by hand", {"decode calls": 3.0}, (1.0, 1.0, 1.0), (0.2, 0.4, 0.8), (0.5, 0.9, 1.0), 1e8, 1.5)
LLAMA = ModelConfig("llama", 512, 128, 384, 4, 4, 4)
LARGE = ModelConfig("llama", 49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True)
UPDATES = Updates(LLAMA, 100, 8, Length(192), "float32")
ANSWERS = Answers(LLAMA, 2, 64, 64, Length(30, 160), "float32")
KNOWN = Shares(0.5, 1.0)


def work(*parts, **sizes):
    return StageWork("stage", "kind", parts, **sizes)


def seconds(stage, probe=PROBE, shares=KNOWN):
    return predict(stage, probe, FACTORS, shares).range.p50


def test_products_of_training_take_its_operations_at_the_probed_speed_of_their_width_and_precision():
    small = terms(work(UPDATES), PROBE, KNOWN)["update products float32"]
    assert small == pytest.approx(training_flops(LLAMA, 100 * 8 * 192, 192) / PROBE.gemm_small)
    large = terms(work(replace(UPDATES, config=LARGE)), PROBE, KNOWN)["update products float32"]
    assert large == pytest.approx(training_flops(LARGE, 100 * 8 * 192, 192) / PROBE.gemm_float32)
    narrow = terms(work(replace(UPDATES, config=LARGE, dtype="bfloat16")), PROBE, KNOWN)
    assert narrow["update products bfloat16"] == pytest.approx(large * PROBE.gemm_float32 / PROBE.gemm_bfloat16)


def test_elements_are_counted_in_the_probes_small_step():
    found = terms(work(replace(UPDATES, config=PROBED, steps=1, rows=6, length=Length(191))), PROBE, KNOWN)
    assert found["update elements"] + found["update routed elements"] == pytest.approx(PROBE.small_step)


def test_examples_of_a_finished_stage_have_the_length_that_they_had():
    took = Taken("stage", "sft", 10.0, 0.0, 1.0, 0, example=77.0)
    known, shares = as_it_was(work(replace(UPDATES, length=Length(30, 160))), took)
    assert (known.parts[0].length, shares) == (Length(77.0), Shares(0.0, 1.0))


@pytest.mark.parametrize("part", [UPDATES, ANSWERS, Readings(LLAMA, 10, Length(100), "float32", by_modules=False)])
def test_a_machine_that_is_twice_as_fast_in_all_takes_half_the_time(part):
    stage = work(part, opened=10**9, made=10**9)
    assert seconds(stage, FAST) == pytest.approx(seconds(stage) / 2)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (replace(UPDATES, steps=101), UPDATES),
        (replace(UPDATES, length=Length(193)), UPDATES),
        (replace(UPDATES, muon=True), UPDATES),
        (replace(UPDATES, beside=(LLAMA,)), UPDATES),
        (replace(UPDATES, cells=512), UPDATES),
        (replace(UPDATES, config=replace(LLAMA, num_hidden_layers=5)), UPDATES),
        (replace(ANSWERS, count=65), ANSWERS),
        (replace(ANSWERS, batch=16), ANSWERS),
        (replace(ANSWERS, rounds=3), ANSWERS),
    ],
)
def test_more_work_takes_longer(more, less):
    assert seconds(work(more)) > seconds(work(less))


def test_groups_without_signal_are_drawn_again_and_not_trained_on():
    half = Shares(0.5, 0.5)
    chosen, redrawn = replace(UPDATES, chosen=True), replace(ANSWERS, redrawn=4)
    assert seconds(work(chosen), shares=half) < seconds(work(chosen))
    assert seconds(work(redrawn), shares=half) > seconds(work(ANSWERS), shares=half)


def test_answers_of_unknown_length_widen_the_range_and_known_ones_do_not():
    unknown = predict(work(ANSWERS), PROBE, FACTORS).range
    assert unknown.p90 > 1.2 * unknown.p10
    known = predict(work(UPDATES), PROBE, FACTORS).range
    assert known.p90 == pytest.approx(known.p10)


def test_answers_that_a_model_was_taught_are_surer_and_take_their_own_length():
    unknown, short, long = (predict(work(ANSWERS, share=share), PROBE, FACTORS).range for share in (None, 0.1, 0.9))
    assert short.p50 < unknown.p50 < long.p50
    assert short.p90 / short.p10 < unknown.p90 / unknown.p10


def test_saving_states_costs_their_bytes_each_minute_and_at_the_end():
    stage = work(replace(UPDATES, steps=10_000))
    plain, saving = seconds(stage), seconds(replace(stage, saved=3 * 10**9))
    ends = 3 + 3e9 / PROBE.bandwidth  # the state at the end, and the memory that it takes
    assert saving == pytest.approx((plain + ends) * (1 + 3 / 60))


def test_memory_is_that_of_the_tensors_with_what_lies_between_them_and_the_process():
    assert predict(work(UPDATES, memory=10**9), PROBE, FACTORS, KNOWN).memory == 1.6e9
    assert predict(work(UPDATES), PROBE, FACTORS, KNOWN).memory is None


def test_what_cannot_be_predicted_is_in_no_total():
    remote = StageWork("ask", "sample", unknown="how fast a server answers is not known")
    stages = [predict(work(UPDATES), PROBE, FACTORS), predict(remote, PROBE, FACTORS)]
    assert stages[1].range is None
    assert total(stages).range().p50 == pytest.approx(stages[0].range.p50)


def test_a_stages_time_is_the_sum_of_the_parts_that_explain_it():
    figure = predict(work(UPDATES, ANSWERS, made=10**9), PROBE, FACTORS, KNOWN).seconds
    parts = [part.value if isinstance(part.value, float) else part.value.range().p50 for part in figure.inputs]
    assert sum(parts) == pytest.approx(figure.middle)


def test_the_factors_that_come_with_spoutnik_are_whole_and_in_order():
    factors = fitted()
    assert all(factor >= 0 for factor in factors.terms.values())
    for low, middle, high in (factors.pace, factors.answer, factors.signal):
        assert 0 < low <= middle <= high
    everything = work(UPDATES, ANSWERS, replace(UPDATES, muon=True, dtype="bfloat16"), replace(ANSWERS, dtype="bfloat16"))
    assert set(terms(everything, PROBE, KNOWN)) <= set(factors.terms)
