"""The arithmetic reader agrees with Python on what it accepts, and refuses the rest quickly."""

import ast
import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks.expression import ExpressionError, parse

expressions = st.recursive(
    st.integers(0, 10**6).map(str),
    lambda inner: st.one_of(st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join), inner.map("({})".format)),
    max_leaves=12,
)


def value(node: ast.expr) -> Fraction:
    """An independent evaluation, over Python's own syntax tree."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    left, right = value(node.left), value(node.right)
    operations = {ast.Add: Fraction.__add__, ast.Sub: Fraction.__sub__, ast.Mult: Fraction.__mul__, ast.Div: Fraction.__truediv__}
    return operations[type(node.op)](left, right)


@given(expressions)
def test_values_agree_with_pythons_grammar(text: str) -> None:
    try:
        expected = value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="zero"):
            parse(text)
    else:
        assert parse(text).value == expected


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_an_expression_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert isinstance(parse(text).value, Fraction)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "1+",
        "+1",
        "-1",
        "1 2",
        "1(2)",
        "(1",
        "1)",
        "1**2",
        "1//2",
        "1e9",
        "0x10",
        "1_000",
        "01",
        "1.5",
        "\N{ARABIC-INDIC DIGIT TWO}",
        "1/0",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_size_caps() -> None:
    assert parse("9" * 18).value == 10**18 - 1
    for text in ("9" * 19, "1" + "+1" * 200, "(" * 40 + "1" + ")" * 40):
        with pytest.raises(ExpressionError):
            parse(text)


def test_loose_reading_takes_decimals_and_a_leading_minus() -> None:
    assert parse("-2.5*2", loose=True).value == -5
    assert parse("-5+3", loose=True).value == -2
    with pytest.raises(ExpressionError):
        parse("--5", loose=True)


def test_literals_and_operators_are_listed_as_written() -> None:
    expression = parse("8/(3-8/3)")
    assert expression.numbers == (8, 3, 8, 3)
    assert expression.operators == ("/", "-", "/")
    assert expression.value == 24
