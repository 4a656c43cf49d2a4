"""The second judge reads mathematics as people write it, and agrees with math-verify where both are sure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks.base import Problem
from spoutnik.tasks.recheck import second_verdict
from spoutnik.tasks.recheck_math import same_mathematics
from spoutnik.tasks.recheck_reader import UnreadableError, read

SAME = [
    (r"\frac{1}{2}", "0.5"), (r"\frac12", "1/2"), (r"-\frac{2}{3}", "-2/3"), (r"3\frac{1}{2}", r"\dfrac{7}{2}"),
    (r"\sqrt{8}", r"2\sqrt{2}"), (r"|{-3}|", "3"),
    (r"2\sqrt2", r"\boxed{\sqrt{8}}"), (r"\frac{\sqrt{3}}{2}", r"\sin(\pi/3)"), ("2^{10}", "1024"), ("2^10", "1024"), ("5!", "120"),
    (r"\sqrt[3]{-8}", "-2"), (r"(1,2)", r"\left(1, 2\right)"), (r"\{1,2\}", r"\{2,1\}"), ("1, 2", "2, 1"),
    (r"(-\infty, 3)", r"(-\infty,3)"),
    ("x^2+2x+1", "(x+1)^2"), ("x=3", "3"), ("3", "The answer is $x = 3$."), ("y = 2x + 3", "3+2x"), (r"\text{(A)}", "A"),
    (r"90^\circ", "90"),
    (r"10\text{ cm}", "10"), ("1,000", "10^3"), (r"50\%", "50%"), (r"\$5", "5"),
]  # fmt: skip
OTHER = [
    (r"\pi", "3.14"), ("(1,2)", "(2,1)"), ("[1,2)", "(1,2)"), ("x^2", "x^3"), (r"\text{east}", r"\text{west}"), ("10^{100}", "10^{100}+1"),
    ("7", "$7$ or $8$"), ("7", r"\boxed{7}\boxed{8}"), ("7", "7 + 0*("), ("1", r"\frac{1}{0}"), (r"\{1,2\}", r"\{1\}"), ("1, 1", "1, 2"),
    ("x", "y"), ("7", r"7 \frac"), (r"\frac{1}{3}", "0.33"),
]  # fmt: skip
UNSURE = [
    (r"\frac{1}{3}", "0.333333"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "7"), (r"50\%", "50"), ("9^{9^{9}}", "1"),
    ("x + y = 3", "y + x = 3"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer", "expected"), [
    *((*pair, True) for pair in SAME), *((*pair, False) for pair in OTHER), *((*pair, None) for pair in UNSURE),
])  # fmt: skip
def test_values_are_compared_and_not_their_writing(reference, answer, expected):
    assert same_mathematics(reference, answer) is expected


@pytest.mark.parametrize(
    ("reference", "answer", "expected"), [*((*pair, True) for pair in SAME[:10]), *((*pair, False) for pair in OTHER[:5])]
)
def test_math_verify_says_the_same(reference, answer, expected):
    judge = pytest.importorskip("spoutnik.tasks.math_judge", reason="needs the extra `rewards`", exc_type=ImportError)
    assert judge.is_same(reference, answer) is expected


@pytest.mark.parametrize(
    ("answer", "expected"), [(r"\dfrac{14}{6}", True), (r"$\frac{7}{4}$", False), ("7/3 or 7/4", False), ("2.3333333", None)]
)
def test_answers_in_files_are_judged_so(answer, expected):
    problem = Problem("jsonl:x", "train", 0, 0, "?", r"\frac{7}{3}")
    assert second_verdict(problem, f"hm</think><answer>{answer}</answer>") is expected


@given(st.text(alphabet=r"0123456789+-*/^(){}[],.=$\ xyfracsqtboed|!%", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        read(text)
    except UnreadableError:
        assert same_mathematics(text, "7") in (None, False)
    else:
        assert same_mathematics(text, text) in (True, None)


@given(st.integers(-999, 999), st.integers(1, 99), st.integers(-999, 999), st.integers(1, 99))
def test_fractions_are_the_same_where_they_are_equal(a, b, c, d):
    assert same_mathematics(rf"\frac{{{a}}}{{{b}}}", f"{c}/{d}") is (a * d == c * b)
