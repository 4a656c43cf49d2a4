"""Trees over numbers: positive integers only, one key for one idea, expressions that mean what the tree means."""

import random

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks import trees
from spoutnik.tasks.expression import parse


def join(operator: str, a: trees.Tree, b: trees.Tree) -> trees.Tree:
    joined = trees.join(operator, a, b)
    assert joined is not None
    return joined


def test_brackets_keep_the_order_of_the_tree() -> None:
    five, eight, thirty, two = (trees.leaf(number) for number in (5, 8, 30, 2))

    assert trees.expression(join("-", thirty, join("+", five, eight))) == "30-(8+5)"
    assert trees.expression(join("-", join("-", thirty, five), eight)) == "30-5-8"
    assert trees.expression(join("+", thirty, join("-", eight, five))) == "30+(8-5)"
    assert trees.expression(join("*", thirty, join("-", eight, five))) == "30*(8-5)"
    assert trees.expression(join("/", thirty, join("*", five, two))) == "30/(5*2)"
    assert trees.expression(join("*", join("/", thirty, five), two)) == "30/5*2"
    assert trees.expression(join("/", join("+", thirty, join("*", five, two)), eight)) == "(30+5*2)/8"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 10**6))
def test_expression_steps_and_value_agree(numbers: list[int], seed: int) -> None:
    tree = trees.random_tree(numbers, "+-*/", random.Random(seed))
    if tree is None:
        return
    written = parse(trees.expression(tree))
    assert written.value == tree.value > 0
    assert sorted(map(int, written.numbers)) == sorted(numbers)
    assert len(trees.steps(tree)) == len(numbers) - 1
    for step in trees.steps(tree):
        left, right = step.split("=")
        assert parse(left).value == int(right)


def test_order_and_grouping_of_a_sum_make_no_new_tree() -> None:
    a, b, c = (trees.leaf(number) for number in (30, 17, 8))
    assert join("-", join("+", a, b), c).key == join("+", a, join("-", b, c)).key == join("+", join("-", a, c), b).key
    assert join("-", a, join("-", b, c)).key == join("+", join("-", a, b), c).key
    assert join("*", join("*", a, b), c).key == join("*", a, join("*", c, b)).key
    assert join("-", a, join("+", b, c)).key != join("+", join("-", a, b), c).key


def test_values_that_are_not_positive_integers_are_refused() -> None:
    five, eight = trees.leaf(5), trees.leaf(8)
    assert trees.join("-", five, five) is None
    assert trees.join("/", eight, five) is None
    assert join("-", five, eight).value == 3


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(0, 10**6))
def test_all_trees_holds_every_random_tree_once(numbers: list[int], seed: int) -> None:
    keys = [tree.key for tree in trees.all_trees(numbers, "+-*/")]
    assert len(set(keys)) == len(keys)
    tree = trees.random_tree(numbers, "+-*/", random.Random(seed))
    assert tree is None or tree.key in keys
