"""Reads arithmetic written by a model: no eval, nothing that can blow up in time or memory.

    sum     = product (("+" | "-") product)*
    product = atom (("*" | "/") atom)*
    atom    = NUMBER | "(" sum ")"

Digits are ASCII, there is no power, and length, depth and literal size are capped, so the largest value has a few hundred digits.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 256
MAX_DEPTH = 32
MAX_DIGITS = 18

_TOKEN = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<symbol>[-+*/()])")


class ExpressionError(ValueError):
    """The text is not an expression that we accept."""


@dataclass(frozen=True)
class Expression:
    """An evaluated expression: its exact value, and the literals and operators in the order in which they were written."""

    value: Fraction
    numbers: tuple[Fraction, ...]
    operators: tuple[str, ...]


def parse(text: str, loose: bool = False) -> Expression:
    """Evaluates `text` exactly; `loose` also takes decimals and one minus sign in front, as prose writes them.

    Raises ExpressionError for everything else, division by zero included.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    return _Reader(text, loose).read()


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, loose: bool) -> None:
        self.loose = loose
        self.tokens = _tokens(text)
        self.at = 0
        self.numbers: list[Fraction] = []
        self.operators: list[str] = []

    def read(self) -> Expression:
        negative = self.loose and bool(self._take("-"))
        value = self._sum(depth=0, negative=negative)
        if self.at < len(self.tokens):
            raise ExpressionError(f"unexpected {self.tokens[self.at]!r}")
        return Expression(value, tuple(self.numbers), tuple(self.operators))

    def _sum(self, depth: int, negative: bool = False) -> Fraction:
        value = self._product(depth)
        value = -value if negative else value
        while operator := self._take("+", "-"):
            self.operators.append(operator)
            right = self._product(depth)
            value = value + right if operator == "+" else value - right
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._atom(depth)
        while operator := self._take("*", "/"):
            self.operators.append(operator)
            right = self._atom(depth)
            if operator == "/" and right == 0:
                raise ExpressionError("division by zero")
            value = value * right if operator == "*" else value / right
        return value

    def _atom(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"brackets nested deeper than {MAX_DEPTH}")
        if self._take("("):
            value = self._sum(depth + 1)
            if not self._take(")"):
                raise ExpressionError("a bracket is not closed")
            return value
        return self._number()

    def _number(self) -> Fraction:
        token = self.tokens[self.at] if self.at < len(self.tokens) else "the end"
        if not token[0].isdigit():
            raise ExpressionError(f"expected a number, found {token!r}")
        if len(token) > MAX_DIGITS:
            raise ExpressionError(f"a number has more than {MAX_DIGITS} digits")
        if not self.loose and ("." in token or (token[0] == "0" and token != "0")):
            raise ExpressionError(f"{token!r} is not a whole number in its usual form")
        self.at += 1
        self.numbers.append(Fraction(token))
        return self.numbers[-1]

    def _take(self, *symbols: str) -> str:
        """Consumes the next token and returns it if it is one of `symbols`, else returns ""."""
        if self.at < len(self.tokens) and self.tokens[self.at] in symbols:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at]!r}")
        tokens.append(match.group())
        at = match.end()
    return tokens
