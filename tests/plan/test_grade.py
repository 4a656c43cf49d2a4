"""The grading: its split, what may calibrate, the checks that need no run, and that what it prints is what the page says."""

from datetime import date
from pathlib import Path

import pytest

from spoutnik.plan.calibration import calibration
from spoutnik.plan.fit import BOUNDS, factors, get, log_errors, loss, put, software_range
from spoutnik.plan.grade import carbon, grade, v3_utilisation
from spoutnik.plan.grade_page import markdown, svg, verdicts
from spoutnik.plan.runs import content, measured, runs
from spoutnik.plan.speech import speech

GRADES = grade()
PAGE = Path(__file__).parents[2] / "docs" / "grading.md"


def test_v3s_utilisation_from_its_hours():
    found = v3_utilisation()
    assert found["causal"] == pytest.approx(0.3906, abs=0.0001)
    assert found["full"] == pytest.approx(0.4385, abs=0.0001)


def test_metas_cards_are_hours_times_watts_times_a_constant_but_for_one():
    cards = {card.name: card for card in carbon()}
    assert [name for name, card in cards.items() if not card.consistent] == ["llama-3.3-70b"]
    assert {round(cards[f"llama-2-{size}"].grams) for size in ("7b", "13b", "70b")} == {423}
    assert all(411 <= round(cards[f"llama-3.1-{size}"].grams) <= 416 for size in ("8b", "70b", "405b"))
    assert cards["llama-3.3-70b"].grams < 3


def test_the_split_is_the_rule_of_the_table():
    for run in runs():
        side = "claimed" if run.status == "claimed" else "calibration" if run.published < date(2024, 7, 1) else "held out"
        assert run.side == side
    assert content()["split_date"] == date(2024, 7, 1)
    sides = [row.side for row in measured()]
    assert sides.count("calibration") == 81
    assert sides.count("held out") == 72


def test_claims_never_calibrate():
    assert {run.name for run in runs() if run.side == "claimed"} == {"opt-175b", "gpt-3", "pythia-12b"}
    assert all(run.status == "disclosed" for run in runs() if run.side != "claimed")


def test_every_row_has_its_source():
    assert all(run.source for run in runs())
    assert all(row.source for row in measured())


def test_the_fit_looks_at_calibration_rows_and_cannot_better_itself_by_small_steps():
    rows, constants = [row for row in measured() if row.side == "calibration"], calibration()
    least = loss(rows, constants)
    for name in BOUNDS:
        for step in (0.97, 1.03):
            low, high = BOUNDS[name]
            assert loss(rows, put(constants, name, min(high, max(low, get(constants, name) * step)))) > 0.98 * least


def test_programs_weigh_alike_however_many_rows_they_have():
    rows = [row for row in measured() if row.side == "calibration"]
    errors = log_errors(rows, calibration())
    found = software_range(rows, errors)
    assert found.p10 < found.p50 < found.p90
    assert found.p50 == pytest.approx(calibration().software.p50, rel=0.02)
    assert set(factors(rows, errors)) == {row.program for row in rows}


def test_scores_hold_as_the_page_says():
    scores = GRADES.scores()
    assert scores["gpu_hours_held_out"].median < 0.15
    assert scores["gpu_hours_held_out"].coverage >= 0.8
    assert scores["step_held_out"].median < 0.05
    assert scores["step_held_out_program_known"].coverage >= 0.8
    assert 0.75 < scores["step_held_out"].coverage < 0.8, "a miss that the page tells"


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text(encoding="utf-8") == markdown(GRADES, str(content()["split_date"]), "images/grading.svg")
    assert (PAGE.parent / "images" / "grading.svg").read_text(encoding="utf-8") == svg(GRADES)
    assert any("missed" in line for line in verdicts(GRADES.scores(), speech("en")))
