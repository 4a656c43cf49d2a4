"""Axes are round and hold every value; thinning and smoothing lose no peak and invent none."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.run.report_svg import nice_ticks, running_mean, thin_out, tick_labels

numbers = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(numbers, numbers)
def test_ticks_are_even_hold_both_ends_and_are_few(a, b):
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + abs(steps[0]) * 1e-6
    assert ticks[-1] >= high - abs(steps[0]) * 1e-6
    assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


@given(numbers, numbers)
def test_labels_are_told_apart(a, b):
    ticks = nice_ticks(min(a, b), max(a, b))
    if max(map(abs, ticks)) < 1e6 and ticks[1] - ticks[0] > 1e-5:
        assert len(set(tick_labels(ticks))) == len(ticks)


points = st.lists(numbers, min_size=1, max_size=3000).map(lambda values: [(float(step), value) for step, value in enumerate(values)])


@given(points)
def test_thinning_keeps_every_extreme_and_the_order(line):
    thin = thin_out(line, most=100)
    assert len(thin) <= max(100, 2)
    assert {min(y for _, y in line), max(y for _, y in line)} <= {y for _, y in thin}
    assert set(thin) <= set(line)
    assert thin == sorted(thin)


@given(points)
def test_the_running_mean_stays_within_the_values(line):
    values = [y for _, y in line]
    smooth = running_mean(line)
    assert [x for x, _ in smooth] == [x for x, _ in line]
    slack = 1e-6 * max(1.0, *map(abs, values)) * len(values)
    assert all(min(values) - slack <= y <= max(values) + slack for _, y in smooth)
