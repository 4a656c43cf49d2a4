"""Samples that have the quantiles they were asked for, and that two plans share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.plan.uncertain import SAMPLES, apply, fixed, lognormal, normal, triangular, uniform

positive = st.floats(1e-3, 1e9)


@given(st.lists(positive, min_size=3, max_size=3))
def test_a_lognormal_has_the_quantiles_it_was_given(values):
    low, middle, high = sorted(values)
    found = lognormal(low, middle, high, name="anything").range()
    assert found.p10 == pytest.approx(low, rel=0.02 * (1 + np.log(middle / low)))
    assert found.p50 == pytest.approx(middle, rel=0.02 * (1 + np.log(high / low)))
    assert found.p90 == pytest.approx(high, rel=0.02 * (1 + np.log(high / middle)))


@given(st.lists(positive, min_size=3, max_size=3))
def test_a_triangle_stays_within_its_bounds_and_has_its_mean(values):
    low, mode, high = sorted(values)
    found = triangular(low, mode, high, name="anything")
    assert low * (1 - 1e-12) <= found.samples.min() <= found.samples.max() <= high * (1 + 1e-12)
    assert found.mean() == pytest.approx((low + mode + high) / 3, rel=1e-3)


def test_one_name_is_one_world_and_two_names_are_independent():
    price, again, grid = uniform(1, 3, name="price"), uniform(1, 3, name="price"), uniform(1, 3, name="grid")
    assert (price - again).range().to_dict() == {"p10": 0, "p50": 0, "p90": 0}
    assert abs(np.corrcoef(price.samples, grid.samples)[0, 1]) < 0.05


def test_arithmetic_is_draw_by_draw_on_both_sides():
    x = uniform(1, 2, name="x")
    for result in ((2 * x + 1 - x) / x, (x * 2 + (1 - x)) / x):
        assert result.samples == pytest.approx((x.samples + 1) / x.samples)
    assert (6 / x).samples == pytest.approx(6 / x.samples)
    assert (2**x).samples == pytest.approx(2**x.samples)
    assert (-(x**2)).samples == pytest.approx(-(x.samples**2))
    assert apply(np.maximum, x, 1.5).samples.min() == 1.5


def test_known_numbers_have_no_width_and_a_normal_has_its_deviation():
    assert fixed(4).range().to_dict() == {"p10": 4, "p50": 4, "p90": 4}
    found = normal(10, 2, name="anything").samples
    assert len(found) == SAMPLES
    assert (found.mean(), found.std()) == pytest.approx((10, 2), rel=1e-3)


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match="lowest first"):
        triangular(3, 2, 1, name="price")
    with pytest.raises(UserError, match="must be positive"):
        lognormal(0, 2, 3, name="price")
