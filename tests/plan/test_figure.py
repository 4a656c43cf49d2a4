"""A figure tells its value, its formula and who vouches for its inputs."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.answer import why
from spoutnik.plan.figure import Figure, Input, find_figure
from spoutnik.plan.speech import speech
from spoutnik.plan.uncertain import uniform

TOKENS = Input("tokens", 14.8e12, "tokens", "arXiv 2412.19437", "disclosed")
FLOP = Figure("operations", 3.7e24, "FLOP", "tokens * operations a token", (TOKENS,))
PRICE = Input("price", uniform(1, 3, name="price"), "USD/h", "", "assumed")
COST = Figure("cost", 1e6 * uniform(1, 3, name="price"), "USD", "hours * price", (FLOP, PRICE), note="Rental value.")


def test_the_reasons_of_a_figure_go_down_to_its_inputs():
    text = why(COST, speech("en"))
    assert "cost = $2 M ($1.2 M to $2.8 M)" in text
    assert "operations a token" in text
    assert "tokens = 14.8 T tokens [disclosed: arXiv 2412.19437]" in text
    assert "[assumed]" in text


def test_json_is_a_number_or_a_range():
    assert FLOP.to_json() == 3.7e24
    assert COST.to_json() == pytest.approx({"p10": 1.2e6, "p50": 2e6, "p90": 2.8e6}, rel=1e-3)


def test_a_figure_is_found_inside_another_and_an_unknown_one_names_those_near():
    assert find_figure("operations", [COST]) is FLOP
    with pytest.raises(UserError, match="there is operations"):
        find_figure("operation", [COST])


def test_nobody_vouches_with_an_unknown_word():
    with pytest.raises(ValueError, match="rumoured"):
        Input("tokens", 1, status="rumoured")
