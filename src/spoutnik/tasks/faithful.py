"""Does the thinking hold? Every written sum is computed again, and the answer must be reached by one that is right.

A reward for the answer alone lets a policy write `30+30=30` and still answer well; these figures stand beside the accuracy.
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

from spoutnik.tasks.expression import Expression, ExpressionError, parse
from spoutnik.tasks.values import read_number

_LEFT = re.compile(r"[0-9.()+\-*/ \t]{1,120}\Z")
_RIGHT = re.compile(r"[ \t]*(-?[0-9]{1,18}(?:\.[0-9]{1,18})?)(?![0-9])")
_SIGNS = str.maketrans({"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-"})


@dataclass(frozen=True)
class Step:
    """One written sum: the value of its left side and the value it claims."""

    value: Fraction
    claimed: Fraction

    @property
    def right(self) -> bool:
        return self.value == self.claimed


@dataclass(frozen=True)
class StepCheck:
    """How many sums were written and how many of them are right."""

    steps: int
    right: int


def written_steps(reasoning: str) -> list[Step]:
    """Every `expression = number` in the text, in order.

    The left side is the longest arithmetic expression that ends at the equals sign and has an operator; in a chain `25+17=42-8=34` each
    sign claims the number right after it. Digit groups (1,000) are not read as one number.
    """
    sides = reasoning.translate(_SIGNS).split("=")
    steps = []
    for before, after in itertools.pairwise(sides):
        left, right = _expression_at_end(before), _RIGHT.match(after)
        if left is not None and right is not None:
            steps.append(Step(left.value, Fraction(right[1])))
    return steps


def check_steps(reasoning: str) -> StepCheck:
    """Counts the written sums and the right ones among them."""
    steps = written_steps(reasoning)
    return StepCheck(len(steps), sum(step.right for step in steps))


def supported(reasoning: str, value: int | Fraction) -> bool:
    """Whether a sum that is written and right reaches `value`, the value of the answer."""
    return any(step.right and step.value == value for step in written_steps(reasoning))


def _expression_at_end(text: str) -> Expression | None:
    """The longest end of `text` that is an expression with an operator, not cut out of a word or a number."""
    run = _LEFT.search(text)
    if run is None:
        return None
    for start in range(run.start(), len(text)):
        if text[start] in "0123456789(-" and not (start and (text[start - 1].isalnum() or text[start - 1] == ".")):
            try:
                expression = parse(text[start:], loose=True)
            except ExpressionError:
                continue
            if expression.operators:
                return expression
    return None


def answer_value(answer: str) -> Fraction | None:
    """The value of an answer that is a number or an expression, with or without `= value` after it; None for anything else."""
    number = read_number(answer)
    if number is not None:
        return number
    try:
        return parse(answer.partition("=")[0]).value
    except ExpressionError:
        return None
