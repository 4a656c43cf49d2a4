"""Learning-rate factors for any length of run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.train.schedule import cosine, factor, wsd

STEPS = st.integers(1, 300)
SHARE = st.floats(0, 0.5)


@given(STEPS, SHARE, SHARE)
def test_wsd_rises_stays_and_falls(steps, warmup, decay):
    values = [wsd(step, steps, warmup, decay) for step in range(steps)]
    peak = values.index(max(values))
    assert all(0 < value <= 1 for value in values)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@given(STEPS, SHARE)
def test_wsd_without_decay_ends_at_its_peak(steps, warmup):
    assert wsd(steps - 1, steps, warmup, 0.0) == 1.0


def test_wsd_over_ten_steps():
    assert [wsd(step, 10, 0.2, 0.4) for step in range(10)] == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


@given(STEPS, st.floats(0, 1))
def test_cosine_rises_to_one_and_falls_to_its_floor(steps, warmup):
    values = [cosine(step, steps, warmup) for step in range(steps)]
    peak = values.index(max(values))
    assert all(0 < value <= 1 for value in values)
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert max(values) == pytest.approx(1.0)
    assert all(value >= 0.1 - 1e-12 for value in values[peak:])


def test_cosine_is_halfway_in_the_middle():
    assert cosine(50, 100, 0.0, floor=0.1) == pytest.approx(0.55, abs=0.01)


def test_the_name_chooses():
    assert factor("cosine", 70, 100, 0.05) == cosine(70, 100, 0.05)
    assert factor("wsd", 90, 100, 0.05, 0.3) == wsd(90, 100, 0.05, 0.3)
