"""Plans of training: the keys that others read, the intervals, goodput apart from MFU, and sentences for what cannot be."""

import json

import pytest
from typer.testing import CliRunner

from spoutnik.cli.plan import app
from spoutnik.errors import UserError
from spoutnik.plan.bill import Rent
from spoutnik.plan.layout import Layout
from spoutnik.plan.models import open_model
from spoutnik.plan.training import plan_training

LLAMA = open_model("llama-3.1-8b")
PLAN = plan_training(LLAMA, 15e12, "h100-sxm", 256, sequence_length=8192)


def test_json_has_exactly_these_keys_and_five_ranges():
    found = PLAN.to_json()
    exact = {"params_total": 8030261248, "params_active": 8030261248}
    assert {key: found[key] for key in exact} == exact
    assert found["flops_per_token"] == pytest.approx(51.4e9, rel=0.01)
    for key in ("gpu_hours", "days", "cost_usd", "energy_kwh", "co2_t"):
        assert set(found[key]) == {"p10", "p50", "p90"}
        assert 0 < found[key]["p10"] < found[key]["p50"] < found[key]["p90"]
    assert found["memory_gib_per_device"] == pytest.approx(sum(found["memory_gib"].values()))
    assert found["layout"]["devices"] == 256


def test_hours_are_tokens_over_throughput_goodput_and_practice():
    figures = PLAN.figures
    product = figures["tokens_per_second_per_device"].value * figures["goodput"].value * figures["practice"].value * 3600
    assert (15e12 / product).range().p50 == pytest.approx(figures["gpu_hours"].middle)
    assert figures["days"].middle == pytest.approx(figures["gpu_hours"].middle / 256 / 24)


def test_goodput_is_a_share_and_no_part_of_the_mfu():
    goodput = PLAN.figures["goodput"].value.range()
    assert 0.8 < goodput.p10 < goodput.p90 < 1
    assert all(part.name not in ("goodput", "practice") for part in PLAN.figures["mfu"].walk())


def test_a_given_price_leaves_only_the_hours_uncertain():
    plan = plan_training(LLAMA, 1e12, "h800-sxm", 64, rent=Rent(2.0))
    assert plan.figures["cost_usd"].value.range().p90 == pytest.approx(2 * plan.figures["gpu_hours"].value.range().p90)


def test_two_plans_draw_the_same_world():
    other = plan_training(LLAMA, 15e12, "h100-sxm", 512, sequence_length=8192)
    ratio = (other.figures["gpu_hours"].value / PLAN.figures["gpu_hours"].value).range()
    assert ratio.p90 - ratio.p10 < 1e-9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": -1}, "give a positive number"),
        ({"chip": "h1000"}, "near it are .*h100-sxm"),
        ({"count": 0}, "give 1 or more"),
        ({"layout": Layout(data=8)}, "takes 8 chips, but 256 are planned; ask for --count 8"),
        ({"layout": Layout(data=256, sequence_length=8192, zero=0)}, "holds .* GiB on a chip"),
        ({"budget_usd": 1000.0}, "that budget pays for about"),
        ({"count": 1}, "take about 2 chips"),
        ({"layout": {"tensor": 3}}, "cannot be laid out"),
        ({"layout": {"pipeline": 0}}, "pipeline 0; it must be a whole number"),
        ({"layout": {"pipes": 2}}, "no 'pipes'"),
        ({"precision": "fp4"}, "one of bf16, fp8, fp8-kept"),
        ({"batch_tokens": 10}, "holds no sequence of 4,096; give --batch-tokens 4096 or more"),
        ({"budget_usd": -1.0}, "give a positive one"),
        ({"tokens": 1e6, "count": 4096}, "is less than one step .*tokens a step.*; give more tokens"),
    ],
)
def test_what_cannot_be_gets_one_sentence_that_says_what_would(change, words):
    with pytest.raises(UserError, match=words) as refused:
        plan_training(**({"model": LLAMA, "tokens": 1e12, "chip": "h100-sxm", "count": 256} | change))
    assert "\n" not in str(refused.value)


def run(*arguments):
    found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_command_takes_a_model_by_name_and_by_sizes():
    by_name = json.loads(run("train", "--model", "llama-3.1-8b", "--tokens", "15e12", "--chip", "h100-sxm", "--count", "64", "--json"))
    sizes = {"hidden-size": 4096, "intermediate-size": 14336, "num-hidden-layers": 32, "num-attention-heads": 32, "num-key-value-heads": 8}
    flags = [text for key, value in (sizes | {"vocab-size": 128256}).items() for text in (f"--{key}", str(value))]
    by_sizes = json.loads(run("train", *flags, "--tokens", "15e12", "--chip", "h100-sxm", "--count", "64", "--json"))
    assert by_sizes["gpu_hours"] == by_name["gpu_hours"]


def test_the_schedule_command_draws_and_counts(tmp_path):
    out = tmp_path / "dualpipe.svg"
    assert "9.09% bubble; idle 6, as the closed formula says" in run(
        "schedule", "dualpipe", "--stages", "8", "--microbatches", "20", "--svg", str(out)
    )
    assert out.read_text().startswith("<svg xmlns")
    found = json.loads(run("schedule", "zb1p", "--stages", "4", "--microbatches", "8", "--json"))
    assert (found["idle"], found["formula"], found["formula_holds"], len(found["cells"])) == (3, 3, True, 96)


def test_a_steps_seconds_are_told_by_what_they_are_spent_on():
    seconds = PLAN.figures["step_seconds"]
    told = {one.name: one.value for one in seconds.inputs}
    spent = sum(told[name] for name in ("compute", "traffic", "bubble", "data_parallel", "optimiser"))
    assert seconds.middle == pytest.approx(spent, rel=1e-3)
    assert spent == pytest.approx(PLAN.step.seconds)
