"""Numbers are compared by value, and only numbers are taken for numbers."""

from fractions import Fraction

import pytest

from spoutnik.tasks.values import read_number, same_answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("34", 34),
        (" -34. ", -34),
        ("+7", 7),
        ("1,234,567", 1_234_567),
        ("$1,000.50", Fraction("1000.5")),
        ("3/4", Fraction(3, 4)),
        (r"\boxed{34}", 34),
        (r"$\boxed{34}$", None),
        ("007", 7),
        ("1,2", None),
        ("12,34", None),
        ("1/0", None),
        ("34 or 35", None),
        ("3 4", None),
        ("9**9", None),
        ("9e9", None),
        ("\N{FULLWIDTH DIGIT THREE}", None),
        ("9" * 100, None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_read_number(text: str, value: Fraction | None) -> None:
    assert read_number(text) == value


def test_same_answer_compares_numbers_by_value_and_text_by_words() -> None:
    assert same_answer("1000", "1,000.0")
    assert same_answer("0.5", "1/2")
    assert not same_answer("0.3333", "1/3")
    assert not same_answer("34", "34 apples")
    assert same_answer("North  East", "north east")
    assert not same_answer("North", "North East")
    assert not same_answer("yes", "")
