"""Worked attempts at some of reasoning-gym's datasets, written from what an item says of itself."""

from collections.abc import Callable, Mapping
from typing import Any

from spoutnik.errors import UserError


def chain_sum(item: Mapping[str, Any]) -> str:
    """One sum a line, from the left: 15-43=-28."""
    first, *rest = item["metadata"]["expression"].split()
    total, lines = int(first), []
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if operator == "+" else total - int(term)
        lines.append(f"{total}{operator}{term}={result}")
        total = result
    return _attempt(lines, str(total))


def leg_counting(item: Mapping[str, Any]) -> str:
    """Each kind's legs, then their sum."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    lines, total = [], 0
    for animal, count in item["metadata"]["animals"].items():
        legs = ANIMALS[animal]
        lines += [f"{animal}: {count}*{legs}={count * legs}", f"{total}+{count * legs}={total + count * legs}"]
        total += count * legs
    return _attempt(lines, str(total))


def letter_counting(item: Mapping[str, Any]) -> str:
    """Each word letter by letter, with the count so far."""
    target, lines, total = item["metadata"]["target_letter"], [], 0
    for word in item["metadata"]["span"]:
        found = word.lower().count(target)
        total += found
        lines.append(f"{' '.join(word.lower())}: {found}, so far {total}")
    return _attempt(lines, str(total))


def spell_backward(item: Mapping[str, Any]) -> str:
    """The letters, then the letters from the last one on."""
    word = item["metadata"]["word"]
    return _attempt([" ".join(word), " ".join(reversed(word))], word[::-1])


TRACES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    trace.__name__: trace for trace in (chain_sum, leg_counting, letter_counting, spell_backward)
}


def write_trace(dataset: str, item: Mapping[str, Any]) -> str:
    """One worked attempt; raises UserError for a dataset that has none."""
    if dataset not in TRACES:
        raise UserError(
            f"task 'gym:{dataset}' has no worked traces (of reasoning-gym's these have: {', '.join(TRACES)}); take them from a teacher, or "
            "sample them from a model."
        )
    return TRACES[dataset](item)


def _attempt(lines: list[str], answer: str) -> str:
    return "\n".join(lines) + f"\n</think>\n<answer>{answer}</answer>"
