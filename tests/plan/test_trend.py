"""The press's numbers on the curve that they belong to."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.figure import Input
from spoutnik.plan.trend import comparisons, declines, later, months_behind, programmes, run, runs, year_of


def pair(older):
    return next(one for one in comparisons() if one.older.name == older)


def test_eighty_millions_then_five_and_a_half_now_is_three_times_a_year():
    found = pair("gpt-4").figures
    assert found["ratio"].middle == pytest.approx(14.3, rel=0.05)
    assert found["years"].middle == pytest.approx(2.33, abs=0.02)
    yearly = found["yearly"].value.range()
    assert yearly.p10 < 3.1 < yearly.p90
    assert yearly.p90 < 4


def test_v3s_final_run_is_less_than_a_sonnet_of_early_2024_would_cost_at_four_times_a_year():
    expected = pair("sonnet-3_5").expected
    assert expected["amodei-2025"].middle == pytest.approx(30e6 / 4**0.75, rel=0.1)
    assert expected["amodei-2025"].middle > run("deepseek-v3").usd.value


def test_gpt_2_became_two_and_a_half_times_cheaper_each_year():
    assert pair("gpt-2").figures["yearly"].middle == pytest.approx(2.5, abs=0.1)


def test_what_the_final_run_leaves_out_is_a_factor_of_1_5_to_5_6():
    found = programmes(run("deepseek-v3").usd)
    assert found["olmo-2"].middle == pytest.approx(1.5 * 5.576e6)
    assert found["olmo-3"].middle == pytest.approx(5.62 * 5.576e6, rel=1e-3)


def test_every_claim_says_who_says_so_and_none_of_them_is_called_disclosed():
    assert {run("gpt-4").usd.status, run("sonnet-3_5").usd.status} == {"claimed"}
    for one in runs().values():
        assert one.usd.source
        assert set(one.title) == {"en", "fr"}


def test_time_takes_and_gives_back():
    cost = Input("cost", 8e6, "USD")
    for decline in declines():
        then = later(cost, 2.0, decline)
        assert later(Input("cost", then.middle, "USD"), -2.0, decline).middle == pytest.approx(8e6)
    four = next(one for one in declines() if one.times == 4)
    behind = months_behind(cost, four).value.range()
    assert 8e6 / 4 ** (10 / 12) < behind.p10 < behind.p90 < 8e6 / 4 ** (7 / 12)


def test_dates_and_names_that_are_none_are_refused():
    assert year_of("2024-12") == pytest.approx(2024.955, abs=1e-3)
    for day in ("9999-12", "0001-01"):
        with pytest.raises(UserError, match="write it as 2024-12"):
            year_of(day)
    with pytest.raises(UserError, match="write it as 2024-12"):
        year_of("December")
    with pytest.raises(UserError, match="there is gpt-2"):
        run("gpt-5")
