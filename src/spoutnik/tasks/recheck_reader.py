"""How the second judge reads mathematics, in LaTeX or plain: as exact fractions where it can, else as floats.

Written apart from math-verify and sympy, and on purpose smaller: what it cannot read it says.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

Number = Fraction | float
Tree = Callable[[Mapping[str, float]], Number]
"""A value that depends on variables."""

_LONGEST, _DEEPEST, _MOST_BITS = 500, 40, 4096
_DROPPED = re.compile(r"\\left|\\right|\\[,;:! ]|~|\\displaystyle|\^\{?\\circ\}?|\\degree|\\\$|\$")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}")
_INLINE = re.compile(r"\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)|(\\[A-Za-z]+|\\[{}|])|([A-Za-z])|(\S))")
_SAME = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "\\{": "{{",
    "\\}": "}}",
    "\\|": "|",
    "\N{MINUS SIGN}": "-",
}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "\\sin": math.sin, "\\cos": math.cos, "\\tan": math.tan, "\\ln": math.log, "\\log": math.log10, "\\exp": math.exp,
    "\\arcsin": math.asin, "\\arccos": math.acos, "\\arctan": math.atan,
}  # fmt: skip
_CLOSES = {"(": (")", "]"), "[": (")", "]"), "{{": ("}}",)}


class UnreadableError(ValueError):
    """Not in the mathematics that this judge knows."""


@dataclass(frozen=True)
class Answer:
    """What was read: values, and the brackets around them; bare values and braces have no order. A lone value stands in no brackets."""

    items: tuple[Tree, ...]
    names: frozenset[str]
    decimal: bool = False
    """Whether a number has decimals, which may have been rounded."""
    brackets: str = ""

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", "{{}}")


def read(text: str) -> Answer:
    """The answer in a text: of the only boxed or marked part, if there is one. Raises UnreadableError."""
    if len(text) > _LONGEST:
        raise UnreadableError("too long")
    parts = _BOXED.findall(text) or ["".join(found) for found in _INLINE.findall(text)] or [text]
    if len(parts) > 1:
        raise UnreadableError("several answers")
    plain = _DROPPED.sub(" ", _WORDS.sub(" ", parts[0])).replace("\\%", "").replace("%", "").strip().rstrip(".").strip()
    sides = plain.split("=")
    if len(sides) > 2 or (len(sides) == 2 and not re.fullmatch(r"\s*[A-Za-z](?:_\w|\([A-Za-z]\))?\s*", sides[0])):
        raise UnreadableError("an equation")
    return _Reader(sides[-1]).answer()


def only_words(text: str) -> str | None:
    """The words of a text that is one word in LaTeX's own marks for words, such as \\text{(A)}; else None."""
    found = _WORDS.fullmatch(_DROPPED.sub("", text).strip())
    return plain_words(found[1]) if found else None


def plain_words(text: str) -> str:
    """Without what stands around words."""
    return text.strip(" ().$").casefold()


class _Reader:
    """Reads by descent: lists, sums, products (also without a sign), powers, and what stands alone."""

    def __init__(self, text: str):
        self._tokens: list[str] = []
        for number, command, letter, sign in _TOKEN.findall(text):
            token = number or command or letter or sign
            self._tokens.append(_SAME.get(token, token))
        self._place = self._depth = 0
        self._names: set[str] = set()

    def answer(self) -> Answer:
        opening = self._next()
        if opening in _CLOSES:
            start = self._place
            self._take()
            items = self._list()
            closing = self._next()
            if closing in _CLOSES[opening] and self._place + 1 == len(self._tokens) and (len(items) > 1 or opening == "{{"):
                return self._read(items, opening + closing)
            self._place = start
        items = self._list()
        if self._place < len(self._tokens):
            raise UnreadableError(f"{self._tokens[self._place]} is left")
        return self._read(items)

    def _read(self, items: list[Tree], brackets: str = "") -> Answer:
        return Answer(tuple(items), frozenset(self._names), any("." in token for token in self._tokens), brackets)

    def _list(self) -> list[Tree]:
        items = [self._sum()]
        while self._next() in (",", ";"):
            self._take()
            items.append(self._sum())
        return items

    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._next()
        if not token or (wanted is not None and token != wanted):
            raise UnreadableError(f"{token or 'the end'} instead of {wanted or 'a value'}")
        self._place += 1
        return token

    def _sum(self) -> Tree:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UnreadableError("too deep")
        total = self._product()
        while self._next() in ("+", "-"):
            total = _two(_add if self._take() == "+" else _subtract, total, self._product())
        self._depth -= 1
        return total

    def _product(self) -> Tree:
        value = self._signed()
        while True:
            if self._next() in ("*", "/"):
                value = _two(_multiply if self._take() == "*" else _divide, value, self._signed())
            elif self._begins_value():
                value = _two(_multiply, value, self._power())
            else:
                return value

    def _begins_value(self) -> bool:
        token = self._next()
        return token in ("(", "{", "\\frac", "\\sqrt", "\\pi", *_FUNCTIONS) or token[:1].isalpha()

    def _signed(self) -> Tree:
        if self._next() in ("+", "-"):
            sign = self._take()
            value = self._signed()
            return value if sign == "+" else _two(_subtract, _constant(Fraction(0)), value)
        return self._power()

    def _power(self) -> Tree:
        value = self._atom()
        while self._next() in ("^", "!"):
            value = _one(_factorial, value) if self._take() == "!" else _two(_raise, value, self._argument(digits=False))
        return value

    def _argument(self, digits: bool = True) -> Tree:
        """Of a command or a power: braces, or one sign. Of a number without braces a command takes one of the `digits`: \\frac12."""
        if self._next() == "{":
            return self._within("{", "}")
        token = self._next()
        if digits and token.isdigit() and len(token) > 1:
            self._tokens[self._place : self._place + 1] = [token[0], token[1:]]
        return self._signed() if token == "-" else self._atom()

    def _within(self, opening: str, closing: str) -> Tree:
        self._take(opening)
        value = self._sum()
        self._take(closing)
        return value

    def _atom(self) -> Tree:
        token = self._next()
        if token[-1:].isdigit():
            return self._number()
        if token == "\\frac":
            self._take()
            return _two(_divide, self._argument(), self._argument())
        if token == "\\sqrt":
            return self._root()
        if token in _FUNCTIONS:
            self._take()
            return _one(lambda value: _FUNCTIONS[token](float(value)), self._power())
        if token in ("(", "{", "|"):
            inner = self._within(token, {"(": ")", "{": "}", "|": "|"}[token])
            return _one(_size, inner) if token == "|" else inner
        constants = {"\\pi": math.pi, "\\infty": math.inf, "e": math.e}
        if token in constants:
            self._take()
            return _constant(constants[token])
        if len(token) == 1 and token.isalpha():
            self._names.add(self._take())
            return lambda place: place[token]
        raise UnreadableError(f"{token or 'the end'} is no value")

    def _number(self) -> Tree:
        """A fraction right behind a whole number is added to it: 3\\frac{1}{2}."""
        token = self._take()
        value = Fraction(token.replace(",", ""))
        if self._next() == "\\frac" and token.isdigit():
            return _two(_add, _constant(value), self._atom())
        return _constant(value)

    def _root(self) -> Tree:
        self._take()
        degree = self._within("[", "]") if self._next() == "[" else _constant(Fraction(2))
        return _two(_raise, self._argument(), _two(_divide, _constant(Fraction(1)), degree))


def _constant(value: Number) -> Tree:
    return lambda place: value


def _one(operation: Callable[[Number], Number], value: Tree) -> Tree:
    return lambda place: operation(value(place))


def _two(operation: Callable[[Number, Number], Number], left: Tree, right: Tree) -> Tree:
    return lambda place: operation(left(place), right(place))


def _size(value: Number) -> Number:
    return -value if value < 0 else value


def _add(left: Number, right: Number) -> Number:
    return left + right


def _subtract(left: Number, right: Number) -> Number:
    return left - right


def _multiply(left: Number, right: Number) -> Number:
    return left * right


def _divide(left: Number, right: Number) -> Number:
    return left / right


def _raise(base: Number, exponent: Number) -> Number:
    """Exact where that is a fraction of bearable size: whole exponents, and square roots of squares."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator == 1 and size * abs(exponent.numerator) <= _MOST_BITS:
            return Fraction(base**exponent.numerator)
        if exponent == Fraction(1, 2) and base >= 0:
            roots = math.isqrt(base.numerator), math.isqrt(base.denominator)
            if roots[0] ** 2 == base.numerator and roots[1] ** 2 == base.denominator:
                return Fraction(*roots)
        if base < 0 and exponent.denominator % 2 == 1:  # an odd root of a negative number
            return float(-((-base) ** exponent)) if exponent.numerator % 2 else float((-base) ** exponent)
    value = float(base) ** float(exponent)
    if isinstance(value, complex):
        raise ValueError("no real number")
    return value


def _factorial(value: Number) -> Number:
    if value != int(value) or not 0 <= value <= 200:
        raise ValueError("no factorial")
    return Fraction(math.factorial(int(value)))
