"""No minute holds more than it may, whatever is asked for and whenever."""

import random
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.teacher.limits import JUST_AFTER_S, LONGEST_BACKOFF_S, WINDOW_S, Pace, Window, backoff, retry_after

ROUNDING = 1e-6


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60)), max_size=60))
def test_no_minute_holds_more_than_the_limit_and_no_wait_is_in_vain(limit, arrivals):
    window, now, sent = Window(limit), 1000.0, []
    for pause, amount in arrivals:
        now += pause
        wait = window.wait(amount, now)
        if wait:
            too_soon = now + wait - 2 * JUST_AFTER_S
            assert wait <= WINDOW_S + JUST_AFTER_S + ROUNDING
            assert too_soon < now or sum(size for when, size in sent if when >= too_soon - WINDOW_S - ROUNDING) + min(amount, limit) > limit
        now += wait
        assert window.wait(amount, now) == 0.0
        window.spend(amount, now)
        sent.append((now, min(amount, limit)))
    for start, _ in sent:
        assert sum(size for when, size in sent if start <= when <= start + WINDOW_S - ROUNDING) <= limit


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 500)), min_size=1, max_size=40))
def test_a_pace_keeps_both_limits(arrivals):
    pace, now, sent = Pace(5, 600), 0.0, []
    for pause, tokens in arrivals:
        now += pause
        while wait := pace.enter(tokens, now):
            now += wait
        sent.append((now, tokens))
    for start, _ in sent:
        minute = [tokens for when, tokens in sent if start <= when <= start + WINDOW_S - ROUNDING]
        assert len(minute) <= 5
        assert sum(minute) <= 600


def test_a_teacher_that_wants_to_be_left_alone_is():
    pace = Pace(100, 1000)
    pace.hold(30.0, 5.0)
    pace.hold(1.0, 6.0)
    assert pace.enter(1, 10.0) == 25.0
    assert pace.enter(1, 35.0) == 0.0


def test_backoff_doubles_up_to_a_bound_and_is_never_the_same_for_two():
    rng = random.Random(0)
    for attempt in range(12):
        waits = [backoff(attempt, 1.0, rng) for _ in range(50)]
        bound = min(2.0**attempt, LONGEST_BACKOFF_S)
        assert len(set(waits)) == 50
        assert bound / 2 < max(waits) <= bound
        assert min(waits) < bound / 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3"}, 3.0), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({}, None),
        ({"retry-after": "-4"}, 0.0), ({"retry-after": "soon"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, None),
        ({"retry-after": "Sat, 99 Foo 2026"}, None), ({"retry-after-ms": "x"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_all_its_forms(headers, expected):
    assert retry_after(headers, 0.0) == expected


def test_retry_after_may_be_a_date():
    wall = float(int(time.time()))
    assert retry_after({"retry-after": formatdate(wall + 90, usegmt=True)}, wall) == 90.0
    assert retry_after({"retry-after": formatdate(wall - 90, usegmt=True)}, wall) == 0.0


@given(st.text(max_size=20))
def test_no_retry_after_breaks_anything(text):
    found = retry_after({"retry-after": text}, 0.0)
    assert found is None or found >= 0
