"""Scaling laws give back the values that their papers' constants give."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.chips import chip
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.laws import SHARE_OF_PEAK, _best_mixture, at_size, best, chinchilla, compute_for, deepseek, experts, loss, small
from spoutnik.plan.uncertain import lognormal


def flop(value):
    return Figure("flop", value, "FLOP", "given")


@pytest.mark.parametrize(("budget", "size", "tokens", "ratio", "reached"), [
    (1e21, 2.78e9, 60.0e9, 21.6, 2.306), (1e23, 29.4e9, 566e9, 19.2, 2.032), (1e24, 95.9e9, 1.74e12, 18.1, None),
])  # fmt: skip
def test_chinchilla_as_epoch_corrects_it(budget, size, tokens, ratio, reached):
    found = chinchilla(flop(budget)).figures
    assert found["size"].middle == pytest.approx(size, rel=5e-3)
    assert found["tokens"].middle == pytest.approx(tokens, rel=5e-3)
    assert found["ratio"].middle == pytest.approx(ratio, rel=5e-3)
    if reached:
        assert found["loss"].middle == pytest.approx(reached, abs=1e-3)


def test_the_best_size_is_the_best_and_less_sure_away_from_the_data():
    found = chinchilla(flop(1e23)).figures
    size, reached = found["size"].middle, found["loss"].middle
    assert all(loss(size * factor, 1e23 / 6 / (size * factor)) > reached for factor in (0.9, 1.1))
    near, far = (chinchilla(flop(budget)).figures["size"].value.range() for budget in (2e21, 1e25))
    assert far.p90 / far.p10 > near.p90 / near.p10 > 1


@pytest.mark.parametrize(("budget", "each", "tokens", "rate", "batch"), [
    (1e20, 5.25e9, 19.0e9, 9.9e-4, 1.02e6), (1e24, 6.57e11, 1.52e12, 3.1e-4, 20.7e6),
])  # fmt: skip
def test_deepseeks_own_law(budget, each, tokens, rate, batch):
    found = deepseek(flop(budget)).figures
    assert found["operations"].middle == pytest.approx(each, rel=0.01)
    assert found["tokens"].middle == pytest.approx(tokens, rel=0.01)
    assert found["learning_rate"].middle == pytest.approx(rate, rel=0.02)
    assert found["batch_tokens"].middle == pytest.approx(batch, rel=0.01)


def test_both_laws_agree_on_tokens_within_a_fifth():
    for budget in (1e20, 1e22, 1e24):
        assert chinchilla(flop(budget)).figures["tokens"].middle == pytest.approx(deepseek(flop(budget)).figures["tokens"].middle, rel=0.2)


def test_mixtures_need_less_compute_than_dense_models_and_finer_ones_less_still():
    found = experts(flop(1e22)).figures
    assert found["dense_compute"].middle > 1
    at_paper = experts(flop(1e20)).figures["dense_compute"].middle
    assert at_paper == pytest.approx(20, rel=0.15), "the paper says 20 times at 1e20 FLOP"
    assert found["size_total"].middle == pytest.approx(43 * found["size"].middle)
    assert _best_mixture(1e22, 8)[1] < _best_mixture(1e22, 1)[1]


def test_small_models_get_their_ratio():
    found = small(flop(4.3e19)).figures
    assert found["ratio"].value.range().p10 == pytest.approx(9, abs=0.5)
    assert 6 * found["size"].middle * found["tokens"].middle == pytest.approx(4.3e19, rel=0.01)


def test_another_size_costs_what_the_law_says():
    exact = at_size(flop(1e23), chinchilla(flop(1e23)).figures["size"].middle)
    assert exact["excess"].middle == pytest.approx(1.0, abs=1e-3)
    assert at_size(flop(1e23), 3e9)["excess"].middle > 1.5


def test_money_becomes_compute_and_v3s_budget_becomes_v3s_compute():
    """2.788 M hours of H800 at 2 USD trained 6 x 37.55e9 x 14.8e12 = 3.33e24 (pretraining took 95.6 % of the hours)."""
    price = chip("h800-sxm").price_input()
    found = compute_for(5.576e6, price, chip("h800-sxm").input("bf16_tflops"))
    assert found.value.range().p10 < 3.33e24 < found.value.range().p90


def test_an_uncertain_budget_gives_wider_ranges():
    sure, unsure = flop(1e23), Figure("flop", lognormal(0.5e23, 1e23, 2e23, name="budget"), "FLOP", "given")
    wide, narrow = (chinchilla(one).figures["tokens"].value.range() for one in (unsure, sure))
    assert wide.p90 / wide.p10 > narrow.p90 / narrow.p10
    for law in (deepseek, experts, small):
        size = law(unsure).figures["size"]
        assert size.value.range().p10 < size.middle < size.value.range().p90, law.__name__
        assert size.middle == pytest.approx(law(sure).figures["size"].middle, rel=0.02)


def test_what_costs_nothing_has_no_budget():
    with pytest.raises(UserError, match="--price above 0"):
        compute_for(1e6, Input("price", 0.0, "USD/h"), chip("h20").input("bf16_tflops"))


def test_budgets_and_sizes_must_be_positive():
    for wrong in (lambda: best(flop(-1.0)), lambda: at_size(flop(1e20), 0), lambda: compute_for(0, None, None)):
        with pytest.raises(UserError, match="positive"):
            wrong()


@pytest.mark.parametrize(("size", "tokens", "hours", "name", "reached"), [
    (69.0e9, 2e12, 1_720_320, "a100-sxm-80", 0.428), (37.0e9, 14.8e12, 2.664e6, "h800-sxm", 0.346),
    (405.9e9, 15.6e12, 30.84e6, "h100-sxm", 0.346), (176.2e9, 366e9, 1_082_990, "a100-sxm-80", 0.318),
    (17e9, 40e12, 5.0e6, "h100-sxm", 0.229),
])  # fmt: skip
def test_the_share_of_the_peak_is_that_of_published_runs(size, tokens, hours, name, reached):
    share = 6 * size * tokens / (hours * 3600 * chip(name).rate("bf16"))
    assert share == pytest.approx(reached, abs=2e-3)
    assert SHARE_OF_PEAK.value.quantile(0.001) < share < SHARE_OF_PEAK.value.quantile(0.999)
