"""Export classes by chip and by date, as the published history has them."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.chips import chip, chips
from spoutnik.plan.rules import REVIEWS, history, performance_density, tpp, verdict, weights_line

TPP = {"a100-sxm-80": 4992, "h100-sxm": 15_832, "h100-pcie": 12_104, "h20": 2368, "h200-sxm": 15_832, "b200": 36_000, "mi300x": 20_919,
       "mi325x": 20_919, "rtx-4090": 5285, "a10": 2000, "ascend-910c": 12_480}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), list(TPP.items()))
def test_total_processing_performance_is_the_published_one(name, value):
    assert tpp(chip(name)).middle == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(("name", "day", "classes", "review"), [
    ("a100-sxm-80", "2022-12-01", ("3A090",), "denial"),
    ("h100-sxm", "2023-06-01", ("3A090",), "denial"),
    ("h800-sxm", "2023-06-01", (), "none"),
    ("h800-sxm", "2023-12-01", ("3A090.a",), "denial"),
    ("h20", "2024-06-01", (), "none"),
    ("h20", "2025-06-01", ("notice",), "licence"),
    ("h20", "2026-06-01", ("notice",), "case_by_case"),
    ("h200-sxm", "2025-12-31", ("3A090.a",), "denial"),
    ("h200-sxm", "2026-01-15", ("3A090.a",), "case_by_case"),
    ("mi325x", "2026-02-01", ("3A090.a",), "case_by_case"),
    ("b200", "2026-02-01", ("3A090.a",), "denial"),
    ("rtx-4090", "2022-12-01", (), "none"),
    ("rtx-4090", "2023-12-01", ("3A090.a",), "denial"),
    ("a10", "2024-06-01", (), "none"),
])  # fmt: skip
def test_a_chip_has_the_class_of_its_day(name, day, classes, review):
    found = verdict(chip(name), day)
    assert (found.classes, found.review) == (classes, review)
    assert found.source
    assert bool(found.why) == bool(classes)


def test_the_h20_lies_under_both_thresholds_and_the_a10_just_under_the_lower_one():
    assert performance_density(chip("h20")).middle == pytest.approx(2.9, abs=0.05)
    assert performance_density(chip("a10")).middle == pytest.approx(3.18, abs=0.01)
    assert performance_density(chip("xeon-amx")) is None


def test_every_chip_has_a_history_and_every_rule_a_text_in_both_languages():
    for one in chips().values():
        for found in history(one):
            assert found.review in REVIEWS
            assert set(found.title) == set(found.explains) == {"en", "fr"}


def test_the_history_of_the_h20_turns_twice():
    assert [found.review for found in history(chip("h20"))] == ["none", "none", "none", "licence", "case_by_case"]


def test_the_diffusion_rule_was_never_in_force_for_chips():
    line = weights_line()
    assert (line["flop_min"], line["open_exempt"], line["until"]) == (1e26, True, "2025-05-13")


def test_what_is_no_day_or_lies_before_all_rules_is_refused():
    with pytest.raises(UserError, match="write it as"):
        verdict(chip("h20"), "yesterday")
    with pytest.raises(UserError, match="the first is of 2022-10-07"):
        verdict(chip("h20"), "2020-01-01")
