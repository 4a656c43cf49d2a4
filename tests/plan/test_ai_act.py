"""Where models stand by the EU's lines of compute."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.ai_act import standing
from spoutnik.plan.figure import Figure
from spoutnik.plan.uncertain import lognormal


def flop(value):
    return Figure("training_flop", value, "FLOP", "given")


@pytest.mark.parametrize(("value", "gpai", "systemic"), [
    (4.3e19, 0, 0), (1e23, 0, 0), (1.01e23, 1, 0), (3.7e24, 1, 0), (9.99e24, 1, 0), (1e25, 1, 1), (3.8e25, 1, 1),
])  # fmt: skip
def test_lines_are_met_where_the_texts_say(value, gpai, systemic):
    found = standing(flop(value))
    assert (found.line("gpai").chance, found.line("systemic").chance) == (gpai, systemic)
    assert len(found.duties) == 4 * gpai + 2 * systemic


def test_a_free_licence_takes_two_duties_away_but_none_with_systemic_risk():
    assert [duty.article for duty in standing(flop(3e24), open_source=True).duties if duty.falls_away] == ["53(1)(a)", "53(1)(b)"]
    assert not any(duty.falls_away for duty in standing(flop(3e25), open_source=True).duties)


def test_near_a_line_an_uncertain_compute_gives_a_chance():
    found = standing(flop(lognormal(8e24, 9.4e24, 12e24, name="v4"))).line("systemic")
    assert 0.2 < found.chance < 0.5


@pytest.mark.parametrize(
    ("value", "original", "provider"), [(1e23, 3e24, False), (1.1e24, 3e24, True), (3e22, None, False), (4e22, None, True)]
)
def test_who_changes_a_model_is_its_provider_from_a_third(value, original, provider):
    found = standing(flop(value), original_flop=original, modified=True)
    assert found.provider is provider
    assert bool(found.duties) is provider


def test_compute_must_be_positive():
    with pytest.raises(UserError, match="positive"):
        standing(flop(-1.0))
