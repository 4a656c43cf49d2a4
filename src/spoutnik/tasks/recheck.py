"""A second opinion on a verdict, for the monitor of reward hacking: it shares no code with the verifiers, nor with the answer's extraction
(of programs only the sandbox and the wire between two programs).

A policy that learns to please a verifier finds what the verifier overlooks. Two judges that were written apart seldom overlook the same.
"""

import ast
import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from spoutnik.tasks.base import Problem
from spoutnik.tasks.recheck_code import code_of, second_run
from spoutnik.tasks.recheck_gym import own_answer
from spoutnik.tasks.recheck_math import same_mathematics

_ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_REFERENCE = ("arithmetic", "letters", "words")  # tasks that have one right answer
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_NUMBERS = re.compile(r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_PLAIN = re.compile(r"[0-9+\-*/() \t]{1,256}\Z")


def second_verdict(problem: Problem, completion: str) -> bool | None:
    """Whether the completion's answer is right; None where this judge cannot tell.

    The answer is what stands in the only answer block behind the thinking, or for a program what `recheck_code.code_of` finds there. It
    knows our own tasks, answers in files (numbers, words, lists, mathematics), programs for which the file has a solution, and those of
    reasoning-gym's datasets that `recheck_gym` knows. Programs run in the sandbox; see there for what it raises.
    """
    thinking, closed, after = completion.partition("</think>")
    content = after if closed else thinking
    kind, _, source = problem.task.partition(":")
    if kind == "code":
        program = code_of(content)
        return False if program is None else second_run(problem, program)
    reference = own_answer(source, problem.prompt) if kind == "gym" else problem.answer
    if reference is None or (kind not in ("jsonl", "gym", "countdown") and problem.task not in _REFERENCE):
        return None
    blocks = _ANSWER.findall(content)
    if len(blocks) != 1:
        return False
    answer = blocks[0].strip()
    if kind == "gym" and source == "spell_backward":
        return reference.casefold() == answer.casefold()
    return _reaches(answer, problem) if problem.task == "countdown" else _same(reference, answer)


def _reaches(answer: str, problem: Problem) -> bool:
    """Countdown by Python's own parser: all numbers, each once, only the given operators, the exact target."""
    written, equals, claimed = answer.partition("=")
    target = problem.data["target"]
    if not _PLAIN.match(written) or (equals and claimed.strip() != str(target)):
        return False
    try:
        tree = ast.parse(written.strip(), mode="eval")
        numbers: Counter[int] = Counter()
        operators: set[str] = set()
        value = _value(tree.body, numbers, operators)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == target and numbers == Counter(problem.data["numbers"]) and operators <= set(problem.data["operators"])


def _value(node: ast.expr, numbers: "Counter[int]", operators: set[str]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers[node.value] += 1
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
        raise ValueError("neither a whole number nor one of + - * /")
    operators.add(_OPERATORS[type(node.op)])
    left, right = _value(node.left, numbers, operators), _value(node.right, numbers, operators)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    return left * right if isinstance(node.op, ast.Mult) else left / right


def _same(reference: str, answer: str) -> bool | None:
    """A number by its value, and no other number may stand beside it; words and lists by their characters; mathematics as mathematics."""
    if any(mark in text for text in (reference, answer) for mark in "\\/^$"):
        return same_mathematics(reference, answer)
    wanted = _number(reference)
    if wanted is not None:
        return {_number(found) for found in _NUMBERS.findall(answer)} == {wanted}
    first, second = (re.sub(r"[\s,\[\]]+", " ", text).strip() for text in (reference, answer))
    return first == second


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return None
