"""The table of chips is whole, sourced, and says what it lacks."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.chips import chip, chips


@pytest.mark.parametrize("name", list(chips()))
def test_every_chip_has_its_numbers_and_says_where_from(name):
    found = chip(name)
    assert found.sources
    assert found.memory_gb > 0
    assert found.bandwidth_tbs > 0
    assert found.rate("fp16") > 0
    assert all(hasattr(found, field) for field in found.assumed)
    if found.price:
        assert 0 < found.price.low <= found.price.mode <= found.price.high
        assert found.price.date
        assert found.price_input().status in ("assumed", "claimed", "disclosed")


def test_an_unknown_chip_names_those_near_it():
    with pytest.raises(UserError, match="h100-sxm, h100-pcie"):
        chip("h100")


def test_a_precision_that_a_chip_lacks_is_refused_with_those_it_has():
    assert chip("h100-sxm").rate("fp8") == 1979e12
    with pytest.raises(UserError, match="choose one of fp16"):
        chip("v100").rate("fp8")


def test_an_input_tells_whether_a_source_was_found():
    assert chip("h100-sxm").input("bandwidth_tbs").status == "disclosed"
    assert chip("h20").input("die_mm2").status == "assumed"
    assert chip("h20").input("bandwidth_tbs").status == "claimed"
