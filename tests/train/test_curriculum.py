"""The curriculum asks what the model solves now and then."""

from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.train.curriculum import PassRates


def rates(*passed, answers=1000):
    found = PassRates.unknown(len(passed))
    for problem, rate in enumerate(passed):
        found.note(problem, round(rate * answers), answers)
    return found


def test_problems_are_drawn_by_the_variance_of_their_reward():
    pool = rates(0.0, 0.1, 0.5, 0.9, 1.0)
    seen = Counter(pool.draw(1, seed)[0] for seed in range(4000))
    weights = [pool.rate(problem) * (1 - pool.rate(problem)) for problem in range(5)]
    for problem in range(5):
        assert seen[problem] / 4000 == pytest.approx(weights[problem] / sum(weights), abs=0.03)


def test_what_was_never_asked_is_asked_before_what_is_known_to_be_solved():
    pool = rates(1.0, 1.0, 1.0, 1.0)
    pool.right.append(0.0)
    pool.answers.append(0.0)
    assert sum(4 in pool.draw(1, seed) for seed in range(100)) > 90


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.integers(0, 99), st.integers(1, 3))
def test_a_draw_holds_different_problems_and_is_a_function_of_state_and_seed(passed, seed, count):
    pool = rates(*passed)
    drawn = pool.draw(count, seed)
    assert len(set(drawn)) == count
    assert PassRates(**asdict(pool)).draw(count, seed) == drawn
    rest = pool.draw(len(passed), seed, without=drawn)
    assert sorted(rest + drawn) == list(range(len(passed)))


def test_new_answers_count_more_than_old_ones():
    pool = rates(0.0, answers=16)
    for _ in range(4):
        pool.note(0, 16, 16)
    assert pool.rate(0) > 0.85
