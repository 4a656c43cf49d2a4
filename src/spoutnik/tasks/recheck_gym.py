"""The second judge's own answers to reasoning-gym's questions, worked out from the words of the question alone.

For the datasets that our recipes train on. Of the others it has no opinion.
"""

import ast
import re
from collections.abc import Callable
from fractions import Fraction

_LEGS = {
    0: "snake, sea slug, jellyfish, flatworm, leech",
    2: "chicken, bird, human, duck",
    4: "dog, cat, cow, horse, lion, elephant, giraffe, tiger, deer, sheep",
    5: "starfish",
    6: "insect, ant, butterfly, beetle, bee, wasp, grasshopper, cricket, cockroach, praying mantis, firefly",
    8: "spider, scorpion",
    10: "crab, lobster, shrimp",
    14: "woodlouse",
}
_LEGS_OF = {animal: legs for legs, animals in _LEGS.items() for animal in animals.split(", ")}
_SUM = re.compile(r"[-(\d][-+*/(). \d]*[\d)]")
_ANIMAL = re.compile(r"(\d+) ([a-z ]+?)(?=,|\?|$)")
_LETTER = re.compile(r'the letter "(.)" appear in the text: "(.*)"\?\Z', re.DOTALL)
_OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda left, right: left + right, ast.Sub: lambda left, right: left - right, ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}  # fmt: skip


def own_answer(dataset: str, question: str) -> str | None:
    """What is right, as text; None for a dataset, or a question, that is not known here."""
    solve = _SOLVERS.get(dataset)
    try:
        return solve(question) if solve else None
    except (KeyError, SyntaxError, ValueError, ZeroDivisionError):
        return None


def _arithmetic(question: str) -> str:
    """The longest stretch of the question that is a sum."""
    return str(_value(ast.parse(max(_SUM.findall(question), key=len), mode="eval").body))


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no sum")


def _legs(question: str) -> str:
    herd = _ANIMAL.findall(question.rpartition("if you have ")[2].strip())
    if not herd:
        raise ValueError("no animals")
    return str(sum(int(count) * _legs_of(animal) for count, animal in herd))


def _legs_of(animal: str) -> int:
    """The plural is the name with an s."""
    return _LEGS_OF[animal] if animal in _LEGS_OF else _LEGS_OF[animal.removesuffix("s")]


def _letters(question: str) -> str:
    found = _LETTER.search(question)
    if found is None:
        raise ValueError("no letter")
    return str(sum(character == found[1].lower() for character in found[2].lower()))


def _backward(question: str) -> str:
    word = question.rpartition(": ")[2].strip()
    return "".join(word[place] for place in range(len(word) - 1, -1, -1))


_SOLVERS: dict[str, Callable[[str], str]] = {
    "chain_sum": _arithmetic, "basic_arithmetic": _arithmetic, "leg_counting": _legs, "letter_counting": _letters,
    "spell_backward": _backward,
}  # fmt: skip
