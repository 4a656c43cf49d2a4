"""Memory of a device: Megatron's published activations to the byte, states by ZeRO stage, and what recomputation and schedules change."""

from dataclasses import replace

import pytest

from spoutnik.plan.components import counts
from spoutnik.plan.grade import memory_rows
from spoutnik.plan.layout import Layout
from spoutnik.plan.memory import GIB, layer_bytes, memory, most_in_flight
from spoutnik.plan.models import open_model
from spoutnik.plan.pieces import pieces
from spoutnik.plan.runs import model_of
from spoutnik.plan.schedule import Durations, generate, simulate

LLAMA = open_model("llama-3.1-8b")


@pytest.mark.parametrize(
    ("name", "fields", "published"),
    [
        ("megatron-22b", {"micro_batch_size": 4, "global_batch_tokens": 4 * 2048}, 9.5625),
        ("megatron-175b", {"pipeline": 8, "schedule": "interleaved", "chunks": 3, "global_batch_tokens": 64 * 2048}, 12.3515625),
        ("megatron-530b", {"pipeline": 35, "schedule": "interleaved", "chunks": 3, "global_batch_tokens": 280 * 2048}, 23.076171875),
        ("megatron-1t", {"pipeline": 64, "global_batch_tokens": 512 * 2048}, 26.5625),
    ],
)
def test_activations_are_those_of_megatrons_figure(name, fields, published):
    """Korthikanti et al. 2022, figure 1, sequence parallelism with selective recomputation."""
    held = memory(model_of(name), Layout(tensor=8, sequence_length=2048, zero=0, **fields))
    assert held.activations / GIB == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v2-lite", "llama-3.1-405b", "qwen2.5-0.5b", "gpt-3", "qwen3-235b-a22b"])
def test_pieces_add_up_to_the_published_parameters(name):
    model = open_model(name)
    found = counts(model)
    assert pieces(model).total == pytest.approx(found.parameters + found.mtp_parameters)


def test_megatrons_states_take_18_bytes_a_parameter_and_zero_shares_them():
    parameters = pieces(LLAMA).total
    alone = Layout(data=64, zero=0)
    states = [memory(LLAMA, replace(alone, zero=stage)) for stage in range(4)]
    totals = [held.weights + held.gradients + held.optimiser for held in states]
    assert totals == pytest.approx([parameters * bytes_ for bytes_ in (18, 6 + 12 / 64, 2 + 16 / 64, 18 / 64)])


def test_dualpipe_holds_parameters_twice_and_one_microbatch_more():
    v3 = open_model("deepseek-v3")
    shape = {"data": 128, "pipeline": 16, "expert": 64, "global_batch_tokens": 15360 * 4096}
    once, twice = (memory(v3, Layout(schedule=name, **shape)) for name in ("1f1b", "dualpipe"))
    assert twice.weights == pytest.approx(2 * once.weights, rel=0.05)
    assert twice.activations / once.activations == pytest.approx(17 / 16)


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zb1p", "zbv", "dualpipe", "dualpipev"])
@pytest.mark.parametrize("microbatches", [8, 16, 64])
def test_microbatches_in_flight_are_the_simulations(schedule, microbatches):
    layout = Layout(pipeline=4, schedule=schedule, global_batch_tokens=microbatches * 4096)
    timeline = simulate(generate(schedule, 4, microbatches), Durations(1, 2, 1))
    assert most_in_flight(layout) == max(timeline.in_flight())


def test_recomputation_keeps_less_and_fp8_activations_are_smaller():
    none, selective, full = (layer_bytes(LLAMA, Layout(recompute=how)) for how in ("none", "selective", "full"))
    assert none > selective > full == 2 * LLAMA.hidden_size
    assert layer_bytes(LLAMA, Layout(precision="fp8-kept")) < none == layer_bytes(LLAMA, Layout(precision="fp8"))


def test_torchtitans_8b_is_met_to_a_twentieth():
    """77.0 GiB on 8 devices, 62.0 on 128, compiled (benchmarks/llama3_h100_202412_torchtitan.md)."""
    rows = [row for row in memory_rows() if row.what == "llama-3.1-8b" and "recompute selective" in row.detail and "H100" in row.detail]
    assert len(rows) == 6
    assert all(abs(row.error) < 0.055 for row in rows)
