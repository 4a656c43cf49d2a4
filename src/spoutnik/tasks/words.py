"""Word problems in the manner of GSM8K, made from templates, with integer answers and worked traces.

A template is a story with holes, ranges for its numbers, and the sums that solve it; a draw counts only if every sum is a positive integer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoutnik.tasks.base import Draft, Problem, check_counts, draw
from spoutnik.tasks.values import same_answer

_NAMES = ("Anna", "Ben", "Chen", "Dara", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena", "Mei", "Noor", "Omar", "Priya")
_THINGS = ("apples", "books", "candles", "cards", "coins", "cups", "eggs", "marbles", "pencils", "shells", "stamps", "tickets")
_PLACES = ("bakery", "club", "farm", "library", "market", "museum", "school", "theatre")


@dataclass(frozen=True)
class Template:
    """`sums` name their results: "cost = count * price". The last one is the answer."""

    story: str
    ranges: dict[str, tuple[int, int]]
    sums: tuple[str, ...]


TEMPLATES = (
    Template(
        "{name} buys {count} {things} for {price} dollars each and pays with {paid} dollars. How many dollars does {name} get back?",
        {"count": (2, 9), "price": (2, 12), "paid": (20, 100)},
        ("cost = count * price", "back = paid - cost"),
    ),
    Template(
        "{name} has {own} {things}. {other} gives {name} {more} more, and then {name} loses {lost}. How many are left?",
        {"own": (5, 60), "more": (3, 40), "lost": (2, 30)},
        ("together = own + more", "now = together - lost"),
    ),
    Template(
        "{name} packs {boxes} boxes with {each} {things} in each and shares them evenly among {children} children. "
        "How many {things} does each child get?",
        {"boxes": (2, 12), "each": (2, 12), "children": (2, 9)},
        ("total = boxes * each", "share = total / children"),
    ),
    Template(
        "A {place} sells {first} {things} on Monday, {more} more than that on Tuesday, and on Wednesday as many as on both days together. "
        "How many {things} does it sell on Wednesday?",
        {"first": (5, 60), "more": (2, 30)},
        ("second = first + more", "third = first + second"),
    ),
    Template(
        "{name} reads {pages} pages a day for {days} days. The book has {total} pages. {name} then reads {fast} pages a day. "
        "How many more days does {name} need to finish it?",
        {"pages": (5, 30), "days": (2, 9), "total": (60, 400), "fast": (5, 40)},
        ("read = pages * days", "left = total - read", "more = left / fast"),
    ),
    Template(
        "{name} earns {wage} dollars an hour and works {hours} hours a day for {days} days, then spends {spent} dollars at the {place}. "
        "How many dollars are left?",
        {"wage": (8, 25), "hours": (2, 8), "days": (2, 6), "spent": (10, 200)},
        ("day = wage * hours", "earned = day * days", "left = earned - spent"),
    ),
    Template(
        "A {place} has {rows} rows of {seats} seats. {taken} seats are taken, and a bus brings {guests} more guests. "
        "How many seats stay empty when all of them sit down?",
        {"rows": (4, 20), "seats": (5, 20), "taken": (10, 200), "guests": (10, 60)},
        ("all = rows * seats", "free = all - taken", "empty = free - guests"),
    ),
    Template(
        "{name} has {own} {things}, {times} times as many as {other}. They put all their {things} together and sell them in bags of {bag}. "
        "How many bags do they fill?",
        {"own": (6, 96), "times": (2, 6), "bag": (2, 9)},
        ("others = own / times", "together = own + others", "bags = together / bag"),
    ),
    Template(
        "{name} buys {a} {things} at {x} dollars each and {b} cakes at {y} dollars each. "
        "A voucher takes {off} dollars off. How many dollars does {name} pay?",
        {"a": (2, 9), "x": (2, 12), "b": (2, 9), "y": (2, 12), "off": (2, 20)},
        ("first = a * x", "second = b * y", "both = first + second", "pay = both - off"),
    ),
    Template(
        "A farmer fills {crates} crates with {each} {things} each and has {loose} left over. {broken} of all of them are broken; "
        "the rest go in equal parts to {shops} shops. How many does each shop get?",
        {"crates": (3, 12), "each": (4, 20), "loose": (1, 20), "broken": (1, 20), "shops": (2, 8)},
        ("packed = crates * each", "all = packed + loose", "good = all - broken", "part = good / shops"),
    ),
)


@dataclass
class Words:
    """`steps`: how many sums a problem may need (2 to 4)."""

    steps: Sequence[int] = (2, 3, 4)
    name: str = field(default="words", init=False)

    def __post_init__(self) -> None:
        self.steps = check_counts(self.name, "steps", self.steps, 2, 4)
        self._templates = [template for template in TEMPLATES if len(template.sums) in self.steps]

    def problem(self, split: str, seed: int, index: int) -> Problem:
        return draw(self.name, split, seed, index, self._draft)

    def _draft(self, rng: random.Random) -> Draft | None:
        template = rng.choice(self._templates)
        numbers = {hole: rng.randint(*bounds) for hole, bounds in template.ranges.items()}
        steps = _work(template, numbers)
        if steps is None:
            return None
        name, other = rng.sample(_NAMES, 2)
        story = template.story.format(name=name, other=other, things=rng.choice(_THINGS), place=rng.choice(_PLACES), **numbers)
        content = f"{template.story} {sorted(numbers.items())}"  # names and things change the story, not the problem
        return Draft(content, story, steps[-1].partition("=")[2], {"steps": steps})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Accepts the number alone."""
        return same_answer(problem.answer, answer)

    def trace(self, problem: Problem, rng: random.Random) -> str:
        """The sums of the template, one a line: there is one way, so `rng` is not used."""
        steps = "\n".join(problem.data["steps"])
        return f"{steps}\n</think>\n<answer>{problem.answer}</answer>"


def _work(template: Template, numbers: dict[str, int]) -> list[str] | None:
    """The sums with their numbers, "7*3=21"; None if one is not a positive integer."""
    known, steps = dict(numbers), []
    for written in template.sums:
        result, _, left, operator, right = written.split()
        a, b = known[left], known[right]
        if operator == "/" and a % b:
            return None
        known[result] = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operator]
        if known[result] <= 0:
            return None
        steps.append(f"{a}{operator}{b}={known[result]}")
    return steps
