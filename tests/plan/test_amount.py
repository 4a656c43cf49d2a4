"""Amounts on the command line."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.plan.amount import amount, count


@pytest.mark.parametrize(("text", "value"), [
    ("14.8T", 14.8e12), ("608B", 608e9), ("608 b", 608e9), ("1.5M", 1.5e6), ("800k", 8e5), ("2,048", 2048), ("2_048", 2048), ("1e12", 1e12),
    ("0.5", 0.5), (3, 3.0), ("16g", 16e9),
])  # fmt: skip
def test_amounts_are_read_as_people_write_them(text, value):
    assert amount(text, "--tokens") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "many", "1.2.3", "T", "12Q", "1 2", "--5", "nan", "inf"])
def test_what_is_no_number_is_refused_by_its_option(text):
    with pytest.raises(UserError, match=r"--tokens .* is no number; write it as in 14\.8T"):
        amount(text, "--tokens")


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_one_sentence(text):
    with contextlib.suppress(UserError):
        assert math.isfinite(amount(text, "--x"))


@pytest.mark.parametrize("text", ["0", "1.5", "-3"])
def test_counts_are_whole_and_one_or_more(text):
    with pytest.raises(UserError, match="whole number of 1 or more"):
        count(text, "--devices")
