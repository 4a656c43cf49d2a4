"""What a record says that stages took: pauses and crowding apart, resumed stages left out."""

import pytest

from spoutnik.plan.taken import taken


def record(durations, kind="rl", resumptions=0, cpu=1.0, definition=None, **metrics):
    definition = {"kind": kind, "max_new_tokens": 100, "prompts": 4, **(definition or {})}
    events = [{"event": "stage_start", "stage": "a", "time": 0.0, "definition": definition}]
    for step, seconds in enumerate(durations, start=1):
        events.append({"event": "step", "stage": "a", "step": step, "time": events[-1]["time"] + seconds, **metrics})
    wall = sum(durations)
    costs = {"wall_s": wall, "cpu_s": 2 * cpu * wall, "cores": 2, "resumptions": resumptions, "peak_memory": 5}
    return [*events, {"event": "stage_end", "stage": "a", "time": wall, "costs": costs}]


def test_steps_that_were_held_up_are_told_from_those_that_are_slow_by_nature():
    steps = [1.0, 1.2, 0.8] * 5
    found = taken(record([*steps, 60.0]))["a"]
    assert (found.seconds, found.paused, found.undisturbed) == pytest.approx((75, 59, 16))
    assert taken(record([*steps, 2.5]))["a"].paused == 0
    assert taken(record([1.0, 1.0, 60.0]))["a"].paused == 0, "of so few steps nobody knows what is usual"


def test_lengths_and_signals_are_shares_of_the_most_that_there_could_be():
    found = taken(record([1.0] * 3, response_length=40.0, informative=3, cpu=0.5))["a"]
    assert (found.answer, found.signal, found.busy, found.memory) == pytest.approx((0.4, 0.75, 0.5, 5))


def test_an_evaluation_says_how_long_its_answers_were_each_as_often_as_it_has_problems():
    events = record([1.0], kind="eval")
    events[1:1] = [
        {"event": "eval", "stage": "a", "time": 0.5, "n": count, "mean_length": length} for count, length in ((500, 20), (100, 80))
    ]
    assert taken(events)["a"].answer == pytest.approx(0.3)


def test_examples_have_the_tokens_of_a_step_over_its_rows():
    found = taken(record([1.0] * 2, kind="sft", definition={"batch_size": 8, "max_new_tokens": None}, tokens=400))["a"]
    assert (found.example, found.answer) == (50, None)


def test_what_was_resumed_or_did_not_end_is_left_out():
    assert taken(record([1.0], resumptions=1)) == {}
    assert taken(record([1.0])[:-1]) == {}
