"""Intervals against published values, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.evaluate.statistics import paired_ratio, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: score without continuity correction
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_intervals(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_nothing_counted_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_mirrors(pair):
    correct, n = pair
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


COUNTS = st.integers(0, 300)


@given(both=COUNTS, first=COUNTS, second=COUNTS)
def test_the_interval_of_a_ratio_holds_it_and_turns_over_with_it(both, first, second):
    low, high = paired_ratio(both, first, second)
    if both + second:
        assert 0 <= low <= (both + first) / (both + second) + 1e-9
    if both + second and both + first:
        assert (both + first) / (both + second) - 1e-9 <= high
        assert paired_ratio(both, second, first) == pytest.approx((1 / high, 1 / low))


def test_nothing_counted_says_nothing_of_a_ratio():
    assert paired_ratio(0, 0, 0) == (0.0, math.inf)


@pytest.mark.parametrize("shares", [(0.2, 0.01, 0.01, 0.78), (0.5, 0.1, 0.05, 0.35), (0.9, 0.01, 0.02, 0.07)])
def test_nineteen_of_twenty_intervals_of_a_ratio_hold_the_truth(shares):
    truth = (shares[0] + shares[1]) / (shares[0] + shares[2])
    draws = np.random.default_rng(0).multinomial(400, shares, size=1000).tolist()
    held = sum(low <= truth <= high for low, high in (paired_ratio(*draw[:3]) for draw in draws))
    assert 0.93 < held / len(draws) < 0.98


def test_pairing_narrows_the_interval_where_both_fail_together():
    """Against two intervals that know nothing of each other."""
    low, high = paired_ratio(850, 40, 42)
    (low_first, high_first), (low_second, high_second) = wilson(890, 4000), wilson(892, 4000)
    assert high - low < 0.5 * (high_first / low_second - low_first / high_second)
