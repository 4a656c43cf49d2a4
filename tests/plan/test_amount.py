"""Amounts on the command line."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.plan.amount import amount, count, switch


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


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1e308k", "1e41"])
def test_what_no_computer_counts_to_is_refused(text):
    with pytest.raises(UserError, match=r"--tokens .* is too large a number"):
        amount(text, "--tokens")


def test_a_switch_is_yes_or_no_and_nothing_else():
    assert [switch(text, "--x") for text in ("yes", "True", "1", "no", "off", " false ")] == [True, True, True, False, False, False]
    with pytest.raises(UserError, match="--x 'banana' is neither yes nor no"):
        switch("banana", "--x")


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,3}e[0-9]{1,4}[kMGT]?", fullmatch=True)))
def test_any_text_is_a_number_or_one_sentence(text):
    with contextlib.suppress(UserError):
        assert math.isfinite(amount(text, "--x"))


@pytest.mark.parametrize("text", ["0", "1.5", "-3"])
def test_counts_are_whole_and_one_or_more(text):
    with pytest.raises(UserError, match="whole number of 1 or more"):
        count(text, "--devices")
