"""The search proposes layouts that fit and is quick; where none fits it says what would."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.chips import chip
from spoutnik.plan.memory import memory
from spoutnik.plan.models import open_model
from spoutnik.plan.search import ROOM, best_layout
from spoutnik.plan.step import step

H100 = chip("h100-sxm")


@pytest.mark.parametrize(
    ("name", "device", "count", "fields"),
    [
        ("llama-3.1-8b", "h100-sxm", 64, {"sequence_length": 8192}),
        ("llama-3.1-405b", "h100-sxm", 1024, {"sequence_length": 8192, "batch_tokens": 1 << 24}),
        ("deepseek-v3", "h800-sxm", 2048, {"batch_tokens": 15360 * 4096, "precision": "fp8-kept", "optimiser": "adamw-v3"}),
        ("smollm2-135m", "a100-sxm-80", 1, {}),
        ("llama-3.1-8b", "h100-sxm", 7, {}),
    ],
)
def test_what_it_proposes_fits_and_uses_all_chips(name, device, count, fields):
    model = open_model(name)
    found = best_layout(model, chip(device), count, **fields)
    assert found.devices == count
    assert memory(model, found).total <= ROOM * chip(device).memory_gb * 1e9


def test_fixed_fields_are_kept_and_a_worse_layout_is_no_better():
    model = open_model("llama-3.1-70b")
    free = best_layout(model, H100, 256, batch_tokens=1 << 22)
    kept = best_layout(model, H100, 256, batch_tokens=1 << 22, tensor=2, pipeline=16, schedule="1f1b")
    assert (kept.tensor, kept.pipeline, kept.schedule) == (2, 16, "1f1b")
    assert step(model, free, H100).tokens_per_second_per_device >= step(model, kept, H100).tokens_per_second_per_device


def test_without_room_it_says_how_many_chips_would_do():
    model = open_model("llama-3.1-405b")
    with pytest.raises(UserError, match="take about 128 chips") as refused:
        best_layout(model, H100, 16)
    assert "holds" in str(refused.value)
    assert best_layout(model, H100, 128).devices == 128


def test_a_prime_number_of_chips_that_no_layout_takes():
    with pytest.raises(UserError, match="does not fit on 13 x h100-sxm"):
        best_layout(open_model("llama-3.1-405b"), H100, 13)


def test_a_fixed_number_that_divides_nothing_is_answered_with_those_that_do():
    with pytest.raises(UserError, match=r"with pipeline=7; .* pipeline 1, 2, 4, 8, 16, 32\."):
        best_layout(open_model("deepseek-v3"), chip("h800-sxm"), 2048, precision="fp8", pipeline=7)
