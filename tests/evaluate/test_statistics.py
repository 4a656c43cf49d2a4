"""Intervals against published values, and how often they hold the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.evaluate.statistics import paired_ratio, pass_at, share_interval, student, wilson


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


@pytest.mark.parametrize(("degrees", "published"), [(4, 2.776), (9, 2.262), (29, 2.045), (99, 1.984), (10**6, 1.960)])
def test_students_quantile_is_that_of_the_tables(degrees, published):
    assert student(degrees) == pytest.approx(published, rel=0.003)


@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at(correct, n, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_exact_where_factorials_would_overflow():
    assert pass_at(1, 10_000, 100) == pytest.approx(0.01)
    assert pass_at(0, 10_000, 100) == 0.0
    assert pass_at(10_000, 10_000, 1) == 1.0
    with pytest.raises(ValueError, match="pass@5 of 4"):
        pass_at(1, 4, 5)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 64))
def test_where_problems_count_whole_the_interval_is_wilsons_however_many_answers(right, most):
    assert share_interval([float(one) for one in right], most) == wilson(sum(right), len(right))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60))
def test_an_interval_of_means_holds_them_within_0_and_1_and_mirrors(counts):
    values = [count / 4 for count in counts]
    low, high = share_interval(values, 4)
    assert 0 <= low <= sum(values) / len(values) + 1e-12
    assert sum(values) / len(values) - 1e-12 <= high <= 1
    assert low < high
    assert share_interval([1 - value for value in values], 4) == pytest.approx((1 - high, 1 - low))


def test_more_answers_narrow_the_interval_only_as_far_as_problems_allow():
    alike = share_interval([0.0] * 50 + [1.0] * 49 + [0.5], 64)
    apart = share_interval([0.45, 0.55] * 50, 64)
    assert alike[1] - alike[0] == pytest.approx(0.19, abs=0.01), "all that answers say is said by the first"
    assert apart[1] - apart[0] == pytest.approx(2 * 1.984 * math.sqrt(0.25 / 6400), rel=0.01), "as good as 6,400 independent answers"


@pytest.mark.parametrize("problems", [(30, (0.3, 0.3)), (100, (0.1, 0.9)), (30, (2, 2)), (100, (20, 30))])
@pytest.mark.parametrize("k", [4, 64])
def test_nineteen_of_twenty_intervals_hold_the_truth_whether_problems_differ_or_not(problems, k):
    n, (a, b) = problems
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        values = (rng.binomial(k, rng.beta(a, b, n)) / k).tolist()
        low, high = share_interval(values, k)
        held += low <= a / (a + b) <= high
    assert 0.93 < held / 1000 < 0.975
