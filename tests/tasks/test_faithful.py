"""Written sums are found in prose and computed again."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks.faithful import StepCheck, check_steps, supported, written_steps


@pytest.mark.parametrize(
    ("text", "steps", "right"),
    [
        ("25+17=42, 42+8=50 no", 2, 2),
        ("30+30=30!", 1, 0),
        ("25 + 17 - 8 = 34.", 1, 1),
        ("25+17=42-8=34", 2, 2),
        ("30-(5+8)=17", 1, 1),
        ("Step 1) 25+17=42", 1, 1),
        ("so 6\N{MULTIPLICATION SIGN}7=42 and 42\N{DIVISION SIGN}6=7", 2, 2),
        ("7/2=3.5", 1, 1),
        ("3-10=-7, -7+5=-2", 2, 2),
        ("7/2=3", 1, 0),
        ("25+17=420", 1, 0),
        ("25+17=4200000000000000000000", 0, 0),
        ("x=5, 5=5, =3, 4+=5, 1/0=0", 0, 0),
        ("12 a12+3=15", 0, 0),
        ("", 0, 0),
    ],
)
def test_steps_are_counted_and_recomputed(text: str, steps: int, right: int) -> None:
    assert check_steps(text) == StepCheck(steps, right)


def test_only_a_right_step_supports_the_answer() -> None:
    assert supported("25+17=42, 42-8=34 yes", 34)
    assert not supported("25+17=42, 42-8=35 yes", 35)
    assert not supported("the answer is 34", 34)
    assert supported("7/2=3.5", Fraction(7, 2))


@given(st.integers(-500, 500), st.integers(0, 500), st.sampled_from("+-*"), st.text(alphabet="ab .,\n=", max_size=8))
def test_a_true_step_is_right_whatever_stands_before_it(a: int, b: int, operator: str, before: str) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[operator]
    steps = written_steps(f"{before} so {a}{operator}{b}={value}, next")
    assert steps
    assert steps[-1].right


@given(st.text(alphabet="0123456789+-*/()= .,ax", max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    check = check_steps(text)
    assert 0 <= check.right <= check.steps
