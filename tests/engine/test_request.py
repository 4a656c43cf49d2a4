"""Requests refuse what cannot be meant."""

import math

import pytest

from spoutnik.engine.request import Request
from spoutnik.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_ids", []),
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("top_k", -1),
        ("stop", ("end", "")),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("presence_penalty", 2.1),
        ("frequency_penalty", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("logit_bias", {3: 101.0}),
        ("logit_bias", {3: math.nan}),
        ("top_logprobs", 21),
        ("thinking_budget", -1),
        ("max_answer_tokens", 0),
    ],
)
def test_a_faulty_value_is_named_when_the_request_is_made(name, value):
    with pytest.raises(UserError, match=f"{name} is .*must"):
        Request(**{"prompt_ids": [1], name: value})


def test_a_budget_needs_the_tokens_that_close_the_thinking():
    with pytest.raises(UserError, match=r"thinking_end is .*must"):
        Request([1], thinking_budget=5)
