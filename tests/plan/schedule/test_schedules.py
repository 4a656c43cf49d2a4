"""Schedules are sound (nobody does two things at once, nothing runs before what it needs) and wait as long as the closed formulas say."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.plan.schedule import SCHEDULES, Durations, Program, Task, formulas, generate, simulate
from spoutnik.plan.schedule.simulate import needs

EQUAL = Durations(1, 2, 1)


def shape(name, devices, extra):
    """Numbers of devices and microbatches that the schedule takes."""
    if name == "dualpipe":
        devices = 2 * devices
        return devices, 2 * devices + 2 * extra
    if name == "interleaved":
        return devices, devices * (1 + extra)
    return (devices, 2 * devices + extra) if name == "dualpipev" else (devices, 1 + extra)


durations = st.builds(
    lambda forward, inputs, weights, hidden: Durations(forward, inputs + weights, weights, (forward + inputs + weights) * hidden),
    st.floats(0.1, 3),
    st.floats(0.1, 3),
    st.floats(0.1, 3),
    st.floats(0.6, 1),
)


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(SCHEDULES), st.integers(1, 6), st.integers(0, 12), durations, st.floats(0, 1))
def test_no_device_does_two_things_everything_runs_once_and_after_what_it_needs(name, devices, extra, durations, hop):
    devices, microbatches = shape(name, devices, extra)
    program = generate(name, devices, microbatches)
    timeline = simulate(program, durations, hop)
    ends, where, done = {}, {}, Counter()
    for row in timeline.cells:
        for before, after in pairwise(row):
            assert before.end <= after.start
        for cell in row:
            assert cell.end - cell.start == pytest.approx(durations.of(cell.task.kind))
            for what in cell.task.done():
                done[what] += 1
                ends[what], where[what] = cell.end, cell.device
    wanted = {(kind, stage, index) for kind in "FIW" for stage in range(program.stages) for index in range(microbatches)}
    assert set(done) == wanted
    assert set(done.values()) == {1}
    for row in timeline.cells:
        for cell in row:
            for need in needs(cell.task, program.stages):
                assert cell.start >= ends[need] + (hop if where[need] != cell.device else 0) - 1e-9
    assert max(timeline.in_flight()) <= formulas.activations(name, devices)
    for microbatch in range(microbatches):
        for stage in range(program.stages):
            assert where["F", stage, microbatch] == where["I", stage, microbatch] == where["W", stage, microbatch]


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "zbv"])
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(0, 20), durations)
def test_the_bubble_is_that_of_the_closed_formula_wherever_it_holds(name, devices, extra, drawn):
    devices, microbatches = shape(name, devices, extra)
    microbatches = max(microbatches, devices)
    forward, weights = drawn.forward, drawn.weights
    if name == "zb1p":
        weights = min(weights, forward, drawn.backward - weights)
        drawn = Durations(forward, drawn.backward, weights)
    if name.startswith("dualpipe"):
        weights = min(weights, forward)
        backward = forward + weights
        drawn = Durations(forward, backward, backward - forward, 0.8 * (forward + backward))
        drawn = Durations(drawn.backward - drawn.weights, backward, drawn.weights, drawn.together)
    assert formulas.holds(name, devices, microbatches, drawn)
    timeline = simulate(generate(name, devices, microbatches), drawn)
    assert timeline.idle == pytest.approx(formulas.bubble(name, devices, drawn), abs=1e-9 * timeline.seconds)


@pytest.mark.parametrize("devices", [1, 2, 4, 7])
@pytest.mark.parametrize("more", [0, 1, 5, 16])
def test_zbv_never_waits_between_a_devices_first_and_last_work(devices, more):
    timeline = simulate(generate("zbv", devices, 2 * devices + more), EQUAL)
    assert formulas.holds("zbv", devices, 2 * devices + more, EQUAL)
    assert timeline.idle_within == 0
    assert timeline.idle == devices - 1, "the last device starts when the first microbatch reaches it"


@pytest.mark.parametrize("name", ["1f1b", "zb1p", "interleaved", "zbv", "dualpipe", "dualpipev"])
def test_the_bound_on_activations_is_reached(name):
    timeline = simulate(generate(name, 4, 24), EQUAL)
    assert max(timeline.in_flight()) == formulas.activations(name, 4)


def test_zero_bubbles_rates_of_its_authors():
    """With equal durations ZB1P's bubble is a third of 1F1B's (sail-sg/zero-bubble)."""
    usual, third = (simulate(generate(name, 8, 32), EQUAL).idle for name in ("1f1b", "zb1p"))
    assert third == pytest.approx(usual / 3)


def test_outside_their_range_the_formulas_are_not_claimed():
    short_forward = Durations(1, 2.5, 0.5)
    assert not formulas.holds("dualpipe", 8, 20, short_forward)
    assert simulate(generate("dualpipe", 8, 20), short_forward).idle != pytest.approx(formulas.bubble("dualpipe", 8, short_forward))
    long_weights = Durations(1, 3, 1.5)
    assert not formulas.holds("zb1p", 4, 8, long_weights)
    assert simulate(generate("zb1p", 4, 8), long_weights).idle > formulas.bubble("zb1p", 4, long_weights)


def letters(row):
    names = {"F": "F", "B": "B", "I": "I", "W": "W", "FB": "P"}
    return "".join(names[task.kind] for task in row)


def test_dualpipes_example_cell_by_cell():
    """The repository's picture: 8 devices, 20 microbatches; first and middle device."""
    program = generate("dualpipe", 8, 20)
    assert letters(program.devices[0]) == "FFFFFF" + "FF" + "IWF" * 3 + "PP" * 3 + "BP" * 3 + "BI" + "WI" * 3 + "W"
    assert letters(program.devices[3]) == "FF" * 4 + "FBP" + "PP" * 5 + "BBBBIIII" + "WWWW"
    assert [task.microbatch for task in program.devices[0] if task.kind in ("F", "FB") and task.stage == 0] == list(range(10))
    assert [task.microbatch for task in program.devices[7] if task.kind in ("F", "FB") and task.stage == 0] == list(range(10, 20))
    assert program.copies == 2


def test_dualpipev_is_dualpipe_cut_in_half():
    """4 devices and 10 microbatches (the repository's second picture) do what DualPipe's first half does with 8 and 20."""
    whole, half = generate("dualpipe", 8, 20), generate("dualpipev", 4, 10)
    assert [letters(row) for row in half.devices] == [letters(row) for row in whole.devices[:4]]
    assert simulate(half, EQUAL).seconds == simulate(whole, EQUAL).seconds


@pytest.mark.parametrize(
    ("name", "devices", "microbatches", "words"),
    [
        ("gpipe", 4, 8, "must be one of 1f1b"),
        ("dualpipe", 3, 8, "must be even"),
        ("dualpipe", 4, 6, "8 or more"),
        ("dualpipev", 4, 6, "8 microbatches or more"),
        ("interleaved", 4, 6, "a multiple of 4"),
        ("1f1b", 0, 6, "must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(name, devices, microbatches, words):
    with pytest.raises(UserError, match=words):
        generate(name, devices, microbatches)


def test_an_order_that_can_never_run_is_noticed():
    crossed = Program("crossed", 2, 1, ((Task("B", 0, 0), Task("F", 0, 0)), (Task("F", 1, 0), Task("B", 1, 0))), 1)
    with pytest.raises(UserError, match="wait for one another"):
        simulate(crossed, EQUAL)


def test_negative_durations_are_refused():
    with pytest.raises(UserError, match="none is negative"):
        Durations(1, 1, 2)
