"""The service: DeepSeek's published day from its parts, the roofline against published throughputs, and what is refused."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan import inference, rates, units
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import chip
from spoutnik.plan.inference import Unit
from spoutnik.plan.models import open_model
from spoutnik.plan.serving import Service, Throughput, plan_serving

DAY = Service(608e9, 168e9, found=342 / 608, context=4989, speed=21, days=1)
"""24 hours of DeepSeek's online system, from its open-infra-index, day 6."""
GIVEN = Throughput(73_700, 14_800, "open-infra-index, day 6", "disclosed")


@pytest.fixture(scope="module")
def v3():
    return open_model("deepseek-v3")


def test_deepseeks_day_comes_out_of_its_parts(v3):
    plan = plan_serving(v3, "day", chip("h800-sxm"), DAY, Rent(2.0), GIVEN)
    assert plan.figures["prefill_nodes"].value == pytest.approx(95.5, abs=0.05)
    assert plan.figures["decode_nodes"].value == pytest.approx(131.4, abs=0.05)
    assert plan.figures["nodes"].value == pytest.approx(226.9, abs=0.05)
    assert plan.figures["nodes"].value == pytest.approx(226.75, rel=1e-3)
    assert plan.figures["cost_usd"].value == pytest.approx(87_072, rel=1e-3)
    assert plan.figures["usd_per_million_input"].value == pytest.approx(0.060, abs=5e-4)
    assert plan.figures["usd_per_million_output"].value == pytest.approx(0.300, abs=5e-4)


def test_the_prediction_of_that_day_holds_the_nodes_that_it_took(v3):
    plan = plan_serving(v3, "day", chip("h800-sxm"), DAY, Rent(2.0))
    nodes = plan.figures["nodes"].value.range()
    assert nodes.p10 < 226.75 < nodes.p90
    assert nodes.p50 / 226.75 - 1 == pytest.approx(-0.13, abs=0.02), "the error that the guide states"
    assert plan.figures["decode_per_node"].middle / 14_800 - 1 == pytest.approx(-0.01, abs=0.02)
    assert plan.figures["prefill_per_node"].middle / 73_700 - 1 == pytest.approx(0.48, abs=0.02)


def test_the_reaches_are_sglangs_measurement_over_the_roofline(v3):
    h100 = chip("h100-sxm")
    prefill = 50_302 / 8 * inference.prefill(v3, Unit(32, spare_experts=32), h100, 4096)
    step = inference.decode(v3, Unit(72, spare_experts=32), h100, 256, 2000 + 50)
    assert prefill == pytest.approx(rates.PREFILL_REACH[1], abs=2e-3)
    assert 22_282 / 8 / (256 / step.seconds) == pytest.approx(rates.DECODE_REACH[1], abs=2e-3)


@pytest.mark.parametrize(("name", "devices", "speed", "measured"), [
    ("b200", None, 23, 5857), ("b200", None, 32, 5515), ("b200", None, 42, 5220), ("mi300x", 8, 23, 725), ("mi300x", 8, 32, 601),
])  # fmt: skip
def test_the_range_for_other_chips_holds_what_inferencex_measured(v3, name, devices, speed, measured):
    """DeepSeek-R1 in FP8, 8k in and 1k out, tokens in and out for each device; the fleet is full there."""
    device = chip(name)
    unit = units.unit_asked(v3, device, devices) if devices else None
    plan = plan_serving(v3, name, device, Service(8192, 1024, prompt=8192, context=8704, speed=speed), Rent(2.0), unit=unit)
    full = rates.load().value
    read, written = (plan.figures[f"{kind}_per_node"].value / full / device.devices_per_node for kind in ("prefill", "decode"))
    together = ((8192 + 1024) / (8192 / read + 1024 / written)).range()
    assert together.p10 < measured < together.p90
    assert 0.5 < together.p50 / measured < 1.3


@pytest.mark.parametrize(("name", "bytes_per_token"), [("deepseek-v3", 70_272), ("llama-3.1-8b", 131_072), ("llama-3.1-70b", 327_680)])
def test_cache_of_a_token_is_the_published_one(name, bytes_per_token):
    assert inference.cache_bytes_per_token(open_model(name)) == bytes_per_token


def test_a_copy_of_v3_needs_two_nodes_of_h800_and_one_of_h200(v3):
    assert units.smallest_unit(v3, chip("h800-sxm")).devices == 16
    assert units.smallest_unit(v3, chip("h200-sxm")).devices == 8
    assert units.smallest_unit(v3, chip("h800-sxm"), 100_000).devices == 16, "one long request is better than none"


def test_guesses_that_count_raise_what_a_user_gets(v3):
    h800 = chip("h800-sxm")
    plain, guessing = (plan_serving(v3, "x", h800, Service(1e9, 1e9, speed=40, accepted=share), Rent(2.0)) for share in (0.0, 0.85))
    assert guessing.figures["tokens_per_s_per_user"].middle > 39
    assert plain.figures["tokens_per_s_per_user"].middle > 39
    one = inference.decode(v3, Unit(32), h800, 8, 4096)
    two = inference.decode(v3, Unit(32), h800, 8, 4096, drafts=1)
    assert one.seconds < two.seconds < 1.85 * one.seconds, "few requests wait for weights, so a second token is cheap"


def test_what_takes_longest_is_named(v3):
    h800 = chip("h800-sxm")
    assert inference.decode(v3, Unit(144), h800, 130, 4989).bound_by == "traffic"
    assert inference.decode(v3, Unit(8), chip("h200-sxm"), 1, 4989).bound_by == "matrices"
    assert inference.decode(open_model("llama-3.1-8b"), Unit(1), chip("h100-sxm"), 64, 8192).bound_by == "attention"


def test_a_faster_user_costs_more_and_a_cached_prompt_less(v3):
    h200 = chip("h200-sxm")
    slow, fast = (plan_serving(v3, "x", h200, Service(1e9, 1e9, speed=speed), Rent(2.0)) for speed in (20, 80))
    assert fast.figures["usd_per_million_output"].middle >= slow.figures["usd_per_million_output"].middle
    fresh, found = (plan_serving(v3, "x", h200, Service(1e9, 1e9, found=share), Rent(2.0)) for share in (0.0, 0.5))
    assert found.figures["usd_per_million_input"].middle < 0.6 * fresh.figures["usd_per_million_input"].middle


def test_memory_of_a_device_holds_weights_and_cache_and_no_more_than_it_has(v3):
    plan = plan_serving(v3, "x", chip("h800-sxm"), DAY, Rent(2.0))
    assert set(plan.memory) == {"weights", "cache"}
    assert sum(plan.memory.values()) <= inference.ROOM * 80e9


@pytest.mark.parametrize(("model", "device", "service", "words"), [
    ("llama-3.1-8b", "a10", {"speed": 500}, "ask for --speed"),
    ("deepseek-v3", "a10", {}, "choose a chip with more than 24 GB"),
    ("llama-3.1-8b", "h100-sxm", {"accepted": 0.8}, "leave --mtp out"),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence_that_says_what_would(model, device, service, words):
    with pytest.raises(UserError, match=words):
        plan_serving(open_model(model), model, chip(device), Service(1e9, 1e9, **service), Rent(2.0))


@pytest.mark.parametrize(("values", "words"), [
    ({"found": 1.0}, "below 1"), ({"accepted": 2.0}, "between 0 and 1"), ({"speed": 0.0}, "above 0"), ({"input_tokens": -1.0}, "608B"),
    ({"prompt": 32_768.0}, "--context 5000 leaves no room for --prompt 32768"),
])  # fmt: skip
def test_impossible_services_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        Service(**({"input_tokens": 1e9, "output_tokens": 1e9} | values))


def test_an_asked_unit_that_cannot_share_the_model_names_those_that_can(v3):
    with pytest.raises(UserError, match="take one of 1, 2, 4, 8"):
        units.unit_asked(open_model("llama-3.1-8b"), chip("h100-sxm"), 48)


@pytest.mark.parametrize(("name", "device", "copy"), [("deepseek-v3", "h800-sxm", 16), ("llama-3.1-8b", "a10", 1)])
def test_however_few_ask_one_copy_stands_ready_and_is_paid_for(name, device, copy):
    few = Service(1e6, 1e6, days=30, speed=10)
    plan = plan_serving(open_model(name), name, chip(device), few, Rent(2.0))
    assert plan.figures["gpu_hours"].middle == pytest.approx(copy * 24 * 30)
    paid = sum(plan.figures[f"usd_per_million_{kind}"].value * 30.0 for kind in ("input", "output"))
    assert paid.range().p50 == pytest.approx(plan.figures["cost_usd"].middle)


def test_more_tokens_never_cost_less(v3):
    costs = [plan_serving(v3, "x", chip("h800-sxm"), Service(n, n), Rent(2.0)).figures["cost_usd"].middle for n in (1e6, 1e9, 2e9, 1e11)]
    assert costs == sorted(costs)
    assert costs[-1] > costs[0]


def test_a_node_that_answers_nothing_is_refused():
    with pytest.raises(UserError, match="must be above 0"):
        Throughput(0.0, 1e4, "somebody")


def test_a_chip_from_before_bf16_answers_in_fp16():
    plan = plan_serving(open_model("llama-3.1-8b"), "x", chip("v100"), Service(1e9, 1e9), Rent(1.0))
    assert plan.figures["decode_per_node"].middle > 0
