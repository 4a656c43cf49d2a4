"""Plans spoken: the words of a language together with the way that it writes numbers, money and units."""

import math
import os
import string
from collections.abc import Mapping
from functools import cache
from typing import Any

from spoutnik.errors import Phrase
from spoutnik.plan.uncertain import Range, Uncertain
from spoutnik.plan.words import Words, sentences, words

NARROW = "\u202f"
"""The narrow no-break space: in French it parts thousands and stands before units and %."""
SIGNIFICANT = 3
"""Digits of what is uncertain; what is known exactly is written with one more, and whole below a million."""
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
PREFIXED = ("FLOP", "FLOP/token", "FLOP/s", "bytes", "bytes/token", "kWh", "bytes/s")


class Speech(Words):
    """The words of one language together with the way it writes numbers."""

    def __init__(self, language: str):
        super().__init__(words(language)._table)
        self.language = language

    def has(self, key: str) -> bool:
        """Whether there are words for this key."""
        return key in self._table

    def label(self, figure: str) -> str:
        """A figure's name as people say it; names that are only asked for with --why have none and stay as they are."""
        return self._table.get(f"figure.{figure}", figure)

    def phrase(self, text: str | Phrase) -> str:
        """A formula, note or sentence in this language; arithmetic, and what has no translation, stays as it is."""
        found = text if isinstance(text, str) else text.words
        found = self._table.get(f"phrase.{found}") or sentences(self.language).get(found, found)
        return found if isinstance(text, str) or not text.values else _Blanks(self).vformat(found, (), text.values)

    def quantity(self, value: float | Uncertain, unit: str, exact: bool = True) -> str:
        """ "$5.58 M", "250.4 GFLOP", "56.7 days": readable, not exact. Of what is uncertain, or no `exact` number, with fewer digits."""
        exact = exact and not isinstance(value, Uncertain)
        middle = value.range().p50 if isinstance(value, Uncertain) else float(value)
        return self._with_unit(middle, unit, exact)

    def interval(self, value: Uncertain | Range, unit: str) -> str:
        """From the tenth to the ninetieth percentile; empty where both are written alike."""
        ends = value.range() if isinstance(value, Uncertain) else value
        low, high = self._with_unit(ends.p10, unit, False), self._with_unit(ends.p90, unit, False)
        return self("plain.range", low=low, high=high) if low != high else ""

    def number(self, value: float, exact: bool = True) -> str:
        """A bare number: 14.8 T, 2,048, 0.35."""
        return self._scaled(value, exact)

    def _with_unit(self, value: float, unit: str, exact: bool) -> str:
        if unit in PREFIXED:
            return self._prefixed(value, unit, exact)
        if unit == "share":
            return f"{self._digits(100 * value, 3)}{NARROW if self.language == 'fr' else ''}%"
        if unit in ("", "1"):
            return self._scaled(value, exact)
        number = self._scaled(value, exact)
        one = self._table.get(f"unit.{unit}.one") if self._is_singular(value, number) else None
        scaled = self._table.get(f"unit.{unit}.scaled") if number[-1:].isalpha() else None
        pattern = one or scaled or self._table.get(f"unit.{unit}")
        if unit.startswith("USD"):
            sign = "-" if value < 0 else ""
            return self._table[f"unit.{unit}"].format(number=self._scaled(abs(value), exact), sign=sign)
        return pattern.format(number=number) if pattern else f"{number} {unit}"

    def _is_singular(self, value: float, written: str) -> bool:
        return abs(value) < 2 if self.language == "fr" else written == "1"

    def _prefixed(self, value: float, unit: str, exact: bool) -> str:
        """1.5e12 FLOP/s -> 1.5 TFLOP/s; kWh becomes MWh and GWh."""
        unit, value = ("Wh", value * 1000) if unit == "kWh" else (unit, value)
        mantissa, _, exponent = f"{value:.{SIGNIFICANT + exact - 1}e}".partition("e")
        if unit == "FLOP" and int(exponent) >= 18:
            return f"{self._digits(float(mantissa), SIGNIFICANT + exact)}e{int(exponent)}{NARROW if self.language == 'fr' else ' '}FLOP"
        power = min(max(int(exponent) // 3, 0), len(PREFIXES) - 1) if value else 0
        shown = self._table.get(f"unit.{unit}", unit)
        space = NARROW if self.language == "fr" else " "
        return f"{self._digits(value / 1000**power, SIGNIFICANT + exact)}{space}{PREFIXES[power]}{shown}"

    def _scaled(self, value: float, exact: bool) -> str:
        """Millions and more get a word behind them; less is written out, with its thousands parted."""
        for scale, word in ((1e12, "scale.T"), (1e9, "scale.B"), (1e6, "scale.M")):
            size = float(self._table[f"{word}.from"]) * scale
            if abs(value) >= size * (1 - 0.5 / 10 ** (SIGNIFICANT + exact)):
                return f"{self._digits(value / scale, SIGNIFICANT + exact)}{NARROW if self.language == 'fr' else ' '}{self._table[word]}"
        if abs(value) >= 1000:
            return self._digits(round(value), 7) if exact else self._digits(value, SIGNIFICANT)
        return self._digits(value, SIGNIFICANT + exact)

    def _digits(self, value: float, significant: int) -> str:
        """At most so many significant digits, without zeros at the end of decimals."""
        if value == 0 or not math.isfinite(value):
            return f"{value:g}"
        decimals = max(significant - 1 - math.floor(math.log10(abs(value))), -12)
        rounded = round(value, decimals)
        text = f"{rounded:,.{max(min(decimals, 9), 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return self.marked(text)

    def marked(self, number: str) -> str:
        """A number written as in English with the marks of this language for thousands and decimals."""
        return number.replace(",", NARROW).replace(".", ",") if self.language == "fr" else number


class _Blanks(string.Formatter):
    """Fills the blanks of a phrase. A number whose format is a unit, or holds a comma, is for people to read; any other is written as the
    command line takes it."""

    def __init__(self, speech: Speech):
        self._speech = speech

    def format_field(self, value: Any, format_spec: str) -> Any:
        if isinstance(value, Phrase):
            return self._speech.phrase(value)
        if self._speech.has(f"unit.{format_spec}"):
            return self._speech.quantity(value, format_spec)
        text = str(super().format_field(value, format_spec))
        return self._speech.marked(text) if "," in format_spec else text


@cache
def speech(language: str) -> Speech:
    """ "en" or "fr". Raises UserError for another."""
    return Speech(language)


def language_of(asked: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """What --lang says; else French where LC_ALL, LC_MESSAGES or LANG (the first that is set) is French; else English."""
    if asked:
        return asked.lower()
    locale = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return "fr" if locale.lower().startswith("fr") else "en"
