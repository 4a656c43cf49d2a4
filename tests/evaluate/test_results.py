"""Figures by hand from a few answers."""

import dataclasses

import pytest

from spoutnik.evaluate.results import pairs_of, result_of, sizes
from spoutnik.evaluate.statistics import wilson
from spoutnik.recipe import Price
from spoutnik.run.machine import cores

FREE = Price()


def test_one_answer_each_has_wilsons_interval_and_no_curve(answered):
    result = result_of("a", "t", answered([[1], [0], [1], [1]]), True, FREE)
    assert (result.n, result.k, result.correct, result.pass_at_1.value) == (4, 1, 3, 0.75)
    assert (result.pass_at_1.low, result.pass_at_1.high) == wilson(3, 4)
    assert (result.pass_at_k, result.cons_at_k, list(result.pass_at)) == (None, None, [1])
    assert (result.date, result.cost, result.currency, result.cost_per_solved) == ("1970-01-02", None, None, None)


def test_of_several_answers_come_the_mean_the_curve_and_the_majority(answered):
    result = result_of("a", "t", answered([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]), True, FREE)
    assert result.pass_at_1.value == 6 / 16
    assert result.pass_at[2].value == pytest.approx((5 / 6 + 3 / 6 + 1 + 0) / 4)
    assert result.pass_at_k.value == result.pass_at[4].value == 3 / 4
    assert (result.pass_at_k.low, result.pass_at_k.high) == wilson(3, 4)
    assert result.cons_at_k.value == (0.5 + 0 + 1 + 0) / 4
    assert sizes(6) == [1, 2, 4, 6]


def test_programs_have_no_majority(answered):
    assert result_of("a", "t", answered([[1, 0]]), False, FREE).cons_at_k is None


def test_what_a_right_answer_takes_counts_the_wrong_ones_too(answered):
    local = answered([[1], [0], [0], [1]], seconds=900.0, joules=1.8e6, energy_source="guessed")
    result = result_of("a", "t", local, True, Price(kwh=0.5, cpu_core_hour=0.25))
    assert (result.tokens_per_answer, result.tokens_per_solved) == (10, 20)
    assert (result.energy_kwh, result.energy_kwh_per_solved, result.energy_source) == (2.0, 1.0, "guessed")
    assert result.wall_s == 3600
    assert result.cost == pytest.approx(1.0 + 0.25 * cores())
    assert result.cost_per_solved == result.cost / 2
    assert (result.cost_basis, result.currency) == ("machine", "EUR")


def test_a_remote_model_has_a_bill_and_no_energy(answered):
    result = result_of("a", "t", answered([[1], [1]], cost=300_000_000, tokens_known=False), True, FREE, "USD")
    assert (result.cost, result.cost_per_answer, result.cost_basis, result.currency) == (0.6, 0.3, "billed", "USD")
    assert (result.energy_kwh, result.energy_source, result.wall_s, result.usage_unknown) == (None, None, None, 2)


def test_nothing_solved_costs_no_number(answered):
    result = result_of("a", "t", answered([[0], [0]]), True, FREE)
    assert (result.tokens_per_solved, result.energy_kwh_per_solved, result.supported) == (None, None, None)


def test_answers_that_never_came_count_as_wrong_and_are_counted(answered):
    table = answered([[1], [1], [1], [1]])
    lost = dataclasses.replace(table[0][0], correct=False, failure="no", finish="failed", tokens=0)
    result = result_of("a", "t", [[lost], *table[1:]], True, FREE)
    assert (result.failed, result.pass_at_1.value, result.tokens_per_answer) == (1, 0.75, 10)
    nothing = result_of("a", "t", [[lost]], True, FREE, "USD")
    assert (nothing.failed, nothing.tokens_per_answer, nothing.cost, nothing.cost_per_answer) == (1, None, 0.0, None)


def test_two_models_are_compared_on_the_same_problems(answered):
    tables = {"a": answered([[1]] * 6 + [[0]]), "b": answered([[0]] * 6 + [[0]])}
    [pair] = pairs_of("t", tables)
    assert (pair.a, pair.b, pair.n, pair.better, pair.worse, pair.test) == ("a", "b", 7, 6, 0, "mcnemar-exact")
    assert (pair.difference.value, pair.p, pair.p_holm) == (pytest.approx(6 / 7), 2 / 64, None)


def test_three_models_are_corrected_for_three_comparisons(answered):
    tables = {"a": answered([[1, 1]] * 6), "b": answered([[1, 0]] * 6), "c": answered([[0, 0]] * 6)}
    pairs = pairs_of("t", tables)
    assert [(pair.a, pair.b, pair.test) for pair in pairs] == [(*names, "sign-flip-exact") for names in ("ab", "ac", "bc")]
    assert [pair.p for pair in pairs] == [2 / 64] * 3
    assert [pair.p_holm for pair in pairs] == [3 * 2 / 64] * 3
