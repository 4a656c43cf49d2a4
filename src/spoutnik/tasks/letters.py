"""Letter and list puzzles: trivial for a program, awkward for a model that reads tokens, and with an obvious way to work them out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoutnik.errors import UserError
from spoutnik.tasks.base import Draft, Problem, check_counts, draw
from spoutnik.tasks.values import same_answer

KINDS = ("reverse", "count", "sort", "last-letters")
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


@dataclass
class Letters:
    """`kinds` of puzzle, `length` of words (made of syllables, so that there are enough of them), `items` in a list."""

    kinds: Sequence[str] = KINDS
    length: Sequence[int] = (4, 5, 6, 7, 8)
    items: Sequence[int] = (3, 4, 5, 6)
    name: str = field(default="letters", init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.kinds, list | tuple) or not self.kinds or not set(self.kinds) <= set(KINDS):
            raise UserError(f"task 'letters': option kinds is {self.kinds!r}; give a list of {', '.join(KINDS)}.")
        self.length = check_counts(self.name, "length", self.length, 2, 24)
        self.items = check_counts(self.name, "items", self.items, 2, 24)

    def problem(self, split: str, seed: int, index: int) -> Problem:
        return draw(self.name, split, seed, index, self._draft)

    def _draft(self, rng: random.Random) -> Draft:
        kind = rng.choice(self.kinds)
        question, answer, work = _PUZZLES[kind](self, rng)
        return Draft(content=question, prompt=question, answer=answer, data={"kind": kind, "work": work})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Words must match exactly, lists may be written with or without spaces and brackets, counts are compared as numbers."""
        if problem.data["kind"] == "sort":
            return _items(answer) == _items(problem.answer)
        return same_answer(problem.answer, answer) if problem.data["kind"] == "count" else answer == problem.answer

    def trace(self, problem: Problem, rng: random.Random) -> str:
        """The puzzle worked letter by letter or item by item: there is one way, so `rng` is not used."""
        return f"{problem.data['work']}\n</think>\n<answer>{problem.answer}</answer>"

    def word(self, rng: random.Random) -> str:
        """A pronounceable word: consonants and vowels in turn."""
        start = rng.randrange(2)
        return "".join(rng.choice((_CONSONANTS, _VOWELS)[(start + place) % 2]) for place in range(rng.choice(self.length)))


def _reverse(task: Letters, rng: random.Random) -> tuple[str, str, str]:
    word = task.word(rng)
    backwards = word[::-1]
    return f'Write the word "{word}" backwards.', backwards, f"{' '.join(word)} backwards is {' '.join(backwards)}"


def _count(task: Letters, rng: random.Random) -> tuple[str, str, str]:
    word = task.word(rng)
    letter = rng.choice(word)
    seen, notes = 0, []
    for other in word:
        seen += other == letter
        notes.append(f"{other} yes {seen}" if other == letter else f"{other} no")
    return f'How many times does the letter "{letter}" occur in "{word}"?', str(seen), ", ".join(notes)


def _sort(task: Letters, rng: random.Random) -> tuple[str, str, str]:
    numbers = [rng.randint(1, 99) for _ in range(rng.choice(task.items))]
    left, notes = list(numbers), []
    while left:
        notes.append(f"{_listed(left)}: smallest {min(left)}")
        left.remove(min(left))
    return f"Sort {_listed(numbers)} from smallest to largest.", _listed(sorted(numbers)), "\n".join(notes)


def _last_letters(task: Letters, rng: random.Random) -> tuple[str, str, str]:
    words = [task.word(rng) for _ in range(rng.choice(task.items))]
    notes = [f"{word} ends in {word[-1]}" for word in words]
    return f'Join the last letters of the words "{" ".join(words)}".', "".join(word[-1] for word in words), ", ".join(notes)


_PUZZLES = {"reverse": _reverse, "count": _count, "sort": _sort, "last-letters": _last_letters}


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _items(text: str) -> list[str]:
    return text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
