"""The second judge of mathematics: whether two answers have the same values, at several points where there are variables."""

import math
from collections.abc import Mapping
from fractions import Fraction

from spoutnik.tasks.recheck_reader import Answer, Number, Tree, UnreadableError, only_words, plain_words, read

POINTS = 3
EXACT, ROUNDED = 1e-9, 1e-5


def same_mathematics(reference: str, answer: str) -> bool | None:
    """Whether both mean the same. None where the reference cannot be read, or only rounding tells them apart.

    An answer that cannot be read is none.
    """
    wanted_words, given_words = only_words(reference), only_words(answer)
    if wanted_words is not None:
        return wanted_words == (given_words if given_words is not None else plain_words(answer))
    if ("%" in reference) != ("%" in answer):
        return None
    try:
        wanted = read(reference)
    except UnreadableError:
        return None
    try:
        given = read(answer)
    except UnreadableError:
        return False
    if len(wanted.items) != len(given.items) or (wanted.ordered and given.ordered and wanted.brackets != given.brackets):
        return False
    if wanted.ordered:
        return _all([_equal(ours, theirs, wanted, given) for ours, theirs in zip(wanted.items, given.items, strict=True)])
    left, verdicts = list(given.items), []
    for ours in wanted.items:
        found = [_equal(ours, theirs, wanted, given) for theirs in left]
        best = next((place for verdict in (True, None) for place, each in enumerate(found) if each is verdict), None)
        if best is None:
            return False
        verdicts.append(found[best])
        left.pop(best)
    return _all(verdicts)


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _equal(ours: Tree, theirs: Tree, wanted: Answer, given: Answer) -> bool | None:
    """At every point where the reference has a value; None where it has none anywhere, or where only rounding tells them apart."""
    names, compared, rounded = sorted(wanted.names | given.names), 0, False
    for point in range(POINTS if names else 1):
        place = {name: 0.37 + (ord(name) * (point + 3) % 89) / 31 for name in names}
        first, second = _value(ours, place), _value(theirs, place)
        if first is None:
            continue
        compared += 1
        exact = isinstance(first, Fraction) and isinstance(second, Fraction)
        if second is None or not (first == second if exact else math.isclose(first, second, rel_tol=EXACT, abs_tol=EXACT)):
            doubtful = wanted.decimal or given.decimal
            if second is None or not doubtful or not math.isclose(first, second, rel_tol=ROUNDED):
                return False
            rounded = True
    return None if rounded or not compared else True


def _value(tree: Tree, place: Mapping[str, float]) -> Number | None:
    try:
        return tree(place)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
