"""Arithmetic over a handful of numbers as trees: drawn at random, listed in full, written as steps or as one expression.

Every value in a tree is a positive integer: the larger operand stands first, a difference is never zero, a division leaves no rest.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tree:
    """A number, or two trees joined by an operator.

    `key` is equal for trees that differ only by the order or grouping of a sum's terms or a product's factors. `kind` is "+" for sums and
    differences, "*" for products and quotients, "" for a number; `parts` are the terms or factors as (is taken away, key).
    """

    value: int
    key: str
    operator: str = ""
    left: "Tree | None" = None
    right: "Tree | None" = None
    kind: str = ""
    parts: tuple[tuple[bool, str], ...] = ()


def leaf(number: int) -> Tree:
    return Tree(number, str(number))


def join(operator: str, a: Tree, b: Tree) -> Tree | None:
    """The tree `a operator b`, larger operand first; None where the value would not be a positive integer."""
    left, right = (a, b) if (a.value, a.key) >= (b.value, b.key) else (b, a)
    if (operator == "-" and left.value == right.value) or (operator == "/" and left.value % right.value):
        return None
    kind = "+" if operator in "+-" else "*"
    parts = tuple(sorted(_parts(left, kind, False) + _parts(right, kind, operator in "-/")))
    key = f"({kind}{' '.join(('~' if taken else '') + part for taken, part in parts)})"
    return Tree(_apply(operator, left.value, right.value), key, operator, left, right, kind, parts)


def random_tree(numbers: Sequence[int], operators: str, rng: random.Random) -> Tree | None:
    """Joins random pairs until one tree holds every number; None when a pair allows no operator."""
    trees = [leaf(number) for number in numbers]
    while len(trees) > 1:
        a, b = (trees.pop(rng.randrange(len(trees))) for _ in range(2))
        joined = next((tree for operator in rng.sample(operators, len(operators)) if (tree := join(operator, a, b))), None)
        if joined is None:
            return None
        trees.append(joined)
    return trees[0]


def all_trees(numbers: Sequence[int], operators: str) -> Iterator[Tree]:
    """Every tree over all the numbers, one for each key. Grows fast: about 10^3 trees for 4 numbers, 10^6 for 6."""
    whole = tuple(sorted(numbers))
    found: dict[tuple[int, ...], list[Tree]] = {(number,): [leaf(number)] for number in whole}
    for size in range(2, len(whole)):
        for subset in set(itertools.combinations(whole, size)):
            found[subset] = list(_joined(subset, operators, found))
    yield from _joined(whole, operators, found) if len(whole) > 1 else found[whole]


def steps(tree: Tree) -> list[str]:
    """The elementary sums that compute the tree, innermost first: `["5+8=13", "30-13=17"]`."""
    if tree.left is None or tree.right is None:
        return []
    return [*steps(tree.left), *steps(tree.right), f"{tree.left.value}{tree.operator}{tree.right.value}={tree.value}"]


def expression(tree: Tree) -> str:
    """The tree as one expression, bracketed so that the usual order of evaluation is the tree's own: `30-(5+8)`, `25+17-8`."""
    if tree.left is None or tree.right is None:
        return str(tree.value)
    left = _bracketed(tree.left, tree.kind == "*" and tree.left.kind == "+")
    right = _bracketed(tree.right, tree.right.kind == "+" or tree.right.kind == tree.kind)
    return f"{left}{tree.operator}{right}"


def _joined(subset: tuple[int, ...], operators: str, found: dict[tuple[int, ...], list[Tree]]) -> Iterator[Tree]:
    seen = set()
    for left_subset, right_subset in _halves(subset):
        for a, b, operator in itertools.product(found[left_subset], found[right_subset], operators):
            tree = join(operator, a, b)
            if tree is not None and tree.key not in seen:
                seen.add(tree.key)
                yield tree


def _halves(subset: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ways to deal a sorted tuple into two non-empty sorted tuples."""
    halves = set()
    for mask in range(1, 2 ** (len(subset) - 1)):
        chosen = tuple(number for place, number in enumerate(subset) if mask >> place & 1)
        others = tuple(number for place, number in enumerate(subset) if not mask >> place & 1)
        halves.add((chosen, others))
    return halves


def _parts(tree: Tree, kind: str, taken: bool) -> list[tuple[bool, str]]:
    if tree.kind != kind:
        return [(taken, tree.key)]
    return [(inner != taken, part) for inner, part in tree.parts]


def _apply(operator: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]


def _bracketed(tree: Tree, brackets: bool) -> str:
    return f"({expression(tree)})" if brackets else expression(tree)
