"""Layouts that cannot be are refused with a sentence that says what could."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.layout import Layout, check_fields
from spoutnik.plan.models import open_model

V3, LLAMA = open_model("deepseek-v3"), open_model("llama-3.1-8b")


def test_deepseek_v3s_own_layout_is_2048_devices_and_120_microbatches():
    layout = Layout(data=128, pipeline=16, expert=64, schedule="dualpipe", global_batch_tokens=15360 * 4096)
    assert (layout.devices, layout.microbatches, layout.stages, layout.stages_per_device) == (2048, 120, 16, 2)
    layout.check(V3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tensor": 0}, "tensor 0; it must be a whole number of 1 or more"),
        ({"schedule": "gpipe"}, "one of 1f1b, interleaved"),
        ({"zero": 4}, "one of 0, 1, 2, 3"),
        ({"data": 4, "expert": 3}, "expert must divide it, as 2 does"),
        ({"data": 4, "global_batch_tokens": 4096 * 5}, "take a multiple of 16,384"),
        ({"pipeline": 4, "schedule": "dualpipe", "global_batch_tokens": 4096 * 6}, "8 or more"),
    ],
)
def test_fields_that_do_not_fit_together(fields, words):
    with pytest.raises(UserError, match=words):
        Layout(**fields)


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        (LLAMA, {"tensor": 5}, "take a divisor, as 4"),
        (LLAMA, {"data": 8, "expert": 8}, "no routed experts; take expert 1"),
        (V3, {"data": 384, "expert": 384}, "take a divisor, as 256"),
        (LLAMA, {"pipeline": 64}, "it can have 34"),
        (LLAMA, {"context": 3}, "take a divisor"),
    ],
)
def test_models_that_cannot_be_cut_so(model, fields, words):
    with pytest.raises(UserError, match=words):
        Layout(**fields).check(model)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pipes": 4}, "no 'pipes'; its fields are data, tensor"),
        ({"pipeline": 0}, "pipeline 0; it must be a whole number"),
        ({"pipeline": "four"}, "pipeline 'four'; it must be a whole number"),
        ({"data": 2.0}, "data 2.0; it must be a whole number"),
        ({"precision": "fp4"}, "one of bf16, fp8, fp8-kept"),
        ({"overlap": "maybe"}, "one of True, False"),
    ],
)
def test_some_fields_are_checked_before_there_is_a_layout(given, words):
    with pytest.raises(UserError, match=words):
        check_fields(given)
    check_fields({"pipeline": 4, "overlap": False, "global_batch_tokens": 0})
