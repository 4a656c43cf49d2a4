"""Amounts as people write them: 14.8T tokens, 608B, 2048."""

import re

from spoutnik.errors import UserError

LARGEST = 1e40
"""Beyond anything that is planned, and small enough for products of several such numbers."""
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def amount(text: str | float, option: str) -> float:
    """ "14.8T" -> 14.8e12; k, M, B (or G) and T, in either case; 2,048 and 1e12 too. Raises UserError naming the option."""
    if isinstance(text, (int, float)):
        return float(text)
    found = re.fullmatch(r"\s*([-+]?[0-9][0-9_,]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?)\s*([kKmMbBgGtT]?)\s*", text)
    if not found:
        raise UserError("{option} {text!r} is no number; write it as in 14.8T, 608B, 1.5M, 2048 or 1e12.", option=option, text=text)
    value = float(re.sub("[_,]", "", found[1])) * SCALES[found[2].lower()]
    if abs(value) > LARGEST:
        raise UserError("{option} {text} is too large a number; write it as in 14.8T or 1e12.", option=option, text=text)
    return value


def switch(text: str, option: str) -> bool:
    """yes or no, as people write them."""
    for words, value in (("1 yes true on", True), ("0 no false off", False)):
        if text.strip().lower() in words.split():
            return value
    raise UserError("{option} {text!r} is neither yes nor no; write one of them.", option=option, text=text)


def count(text: str | float, option: str) -> int:
    """An amount that must be whole and 1 or more."""
    value = amount(text, option)
    if value < 1 or value != int(value):
        raise UserError("{option} {text} must be a whole number of 1 or more.", option=option, text=text)
    return int(value)
