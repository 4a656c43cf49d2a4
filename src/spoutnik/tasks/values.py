"""Compares final answers that are numbers, as people and models write them."""

import re
from fractions import Fraction

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?")
_MAX_CHARS = 64


def read_number(text: str) -> Fraction | None:
    """The value of `text` if it is one number and nothing else, else None.

    Understood: a sign, decimals, digit groups (1,000), a fraction (3/4), a dollar sign, one `\\boxed{}` around it, a full stop at the end.
    """
    if len(text) > _MAX_CHARS:
        return None
    boxed = _BOXED.fullmatch(text.strip())
    plain = (boxed[1] if boxed else text).strip().removesuffix(".").replace("$", "", 1).replace(",\\!", ",")
    if _NUMBER.fullmatch(plain) is None:
        return None
    numerator, _, denominator = plain.replace(",", "").partition("/")
    if denominator and int(denominator) == 0:
        return None
    return Fraction(numerator) / int(denominator or "1")


def same_answer(reference: str, answer: str) -> bool:
    """Equal as exact numbers where the reference is one, else equal as text with white space collapsed and case ignored."""
    wanted = read_number(reference)
    if wanted is not None:
        return read_number(answer) == wanted
    return " ".join(reference.split()).casefold() == " ".join(answer.split()).casefold()
