"""Guessing goes on where it was measured to pay, and is tried again where it did not. No clock: the tests say what steps take."""

import pytest

from spoutnik.engine.speculation import EVERY, LEARN, PROBE, Judge


def run(judge, steps, sequences, seconds, tokens):
    """Steps that cost `seconds` and give `tokens`, each by whether guesses are made; returns how many were made with guesses."""
    guessed = 0
    for _ in range(steps):
        guessing = judge.guesses(sequences)
        judge.note(sequences, guessing, seconds[guessing], tokens[guessing])
        guessed += guessing
    return guessed


FIRST = LEARN + PROBE


def test_guessing_begins_at_once_and_goes_on_where_it_gives_more_tokens_a_second():
    judge = Judge()
    assert run(judge, FIRST, 1, {True: 1.5, False: 1.0}, {True: 2, False: 1}) == LEARN
    assert run(judge, EVERY, 1, {True: 1.5, False: 1.0}, {True: 2, False: 1}) == EVERY


@pytest.mark.parametrize(("seconds", "tokens"), [(1.5, 1), (2.1, 2)])
def test_it_ends_where_guesses_are_wrong_or_cost_too_much_but_for_a_try_now_and_then(seconds, tokens):
    judge = Judge()
    cost, gain = {True: seconds, False: 1.0}, {True: tokens, False: 1}
    run(judge, FIRST, 1, cost, gain)
    assert run(judge, 10 * (EVERY + PROBE), 1, cost, gain) == 10 * PROBE


def test_what_pays_again_is_found_again():
    judge = Judge()
    run(judge, FIRST + EVERY, 1, {True: 1.5, False: 1.0}, {True: 1, False: 1})
    better = {True: 1.5, False: 1.0}, {True: 2, False: 1}
    assert run(judge, PROBE + EVERY + PROBE, 1, *better) == 2 * PROBE, "the first try is outweighed by what is known"
    assert run(judge, EVERY, 1, *better) == EVERY


def test_a_large_batch_is_judged_apart_from_a_small_one():
    judge = Judge()
    run(judge, FIRST, 2, {True: 1.5, False: 1.0}, {True: 4, False: 2})
    run(judge, FIRST, 64, {True: 2.5, False: 1.0}, {True: 128, False: 64})
    assert judge.guesses(2)
    assert judge.guesses(3)
    assert not judge.guesses(64)


def test_a_step_that_was_interrupted_decides_nothing():
    judge = Judge()
    for step in range(FIRST):
        guessing = judge.guesses(1)
        judge.note(1, guessing, 100.0 if step == 5 else 1.5 if guessing else 1.0, 1 + guessing)
    assert judge.guesses(1)
