"""Tests between models against enumeration, and how often their intervals hold the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.evaluate.paired import difference_interval, holm, sign_flip_p

DIFFERENCES = st.lists(st.integers(-4, 4), min_size=1, max_size=10)


@given(DIFFERENCES)
def test_the_p_value_is_the_share_of_all_choices_of_signs_that_are_as_extreme(differences):
    flipped = [sum(sign * each for sign, each in zip(signs, differences, strict=True))
               for signs in itertools.product((-1, 1), repeat=len(differences))]  # fmt: skip
    assert sign_flip_p(differences) == pytest.approx(sum(abs(each) >= abs(sum(differences)) for each in flipped) / len(flipped))


@given(better=st.integers(0, 40), worse=st.integers(0, 40), same=st.integers(0, 5))
def test_for_one_answer_a_problem_it_is_mcnemars_exact_test(better, worse, same):
    n = better + worse
    binomial = min(1.0, 2 * sum(math.comb(n, few) for few in range(min(better, worse) + 1)) / 2**n)
    assert sign_flip_p([1] * better + [-1] * worse + [0] * same) == pytest.approx(binomial)


def test_mcnemars_p_values_by_hand():
    assert sign_flip_p([1] * 5) == 2 / 32
    assert sign_flip_p([1] * 9 + [-1]) == pytest.approx(2 * (1 + 10) / 1024)
    assert sign_flip_p([0, 0]) == 1.0
    assert sign_flip_p([1, -1]) == 1.0
    assert sign_flip_p([1] * 500) == pytest.approx(2.0**-499)


@given(DIFFERENCES)
def test_who_is_named_first_does_not_matter(differences):
    other = [-each for each in differences]
    assert sign_flip_p(differences) == sign_flip_p(other)
    mean, low, high = difference_interval(differences, 4)
    assert difference_interval(other, 4) == pytest.approx((-mean, -high, -low))
    assert -1 <= low <= mean <= high <= 1
    assert low < high


def test_chance_alone_seldom_gives_a_small_p_value():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        chances = rng.beta(0.5, 0.5, 40)
        found.append(sign_flip_p((rng.binomial(8, chances) - rng.binomial(8, chances)).tolist()))
    assert 0.03 < np.mean(np.array(found) <= 0.05) <= 0.06


def test_the_interval_for_one_answer_each_is_bonett_and_prices_but_for_students_quantile():
    better, worse, n = 21, 9, 100
    first, second = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = 1.984217 * math.sqrt((first + second - (first - second) ** 2) / (n + 2))
    mean, low, high = difference_interval([1] * better + [-1] * worse + [0] * (n - better - worse), 1)
    assert mean == pytest.approx(0.12)
    assert (low, high) == pytest.approx((first - second - half, first - second + half), abs=1e-6)


@pytest.mark.parametrize("k", [1, 4, 64])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_intervals_hold_the_true_difference_at_least_nineteen_times_of_twenty(k, shift):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        first = rng.uniform(0.1, 0.8, 50)
        second = first + shift * 2 * rng.random(50)
        _, low, high = difference_interval((rng.binomial(k, second) - rng.binomial(k, first)).tolist(), k)
        held += low <= shift <= high
    assert 0.94 < held / 1000 < 0.99


def test_models_that_agree_everywhere_may_still_differ_elsewhere():
    _, low, high = difference_interval([0] * 30, 1)
    assert high == -low == pytest.approx(2.045 * math.sqrt(2 / 32 / 32), rel=0.001)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(values):
    corrected = holm(values)
    assert all(p <= q <= min(1.0, len(values) * p) + 1e-12 for p, q in zip(values, corrected, strict=True))
    assert [q for _, q in sorted(zip(values, corrected, strict=True))] == sorted(corrected)
