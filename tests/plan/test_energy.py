"""Electricity, carbon and water from hours of chips."""

import json
from dataclasses import replace

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.bill import bill, rent_of
from spoutnik.plan.chips import chip
from spoutnik.plan.energy import energy, grid, grids, measured_power
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.uncertain import Uncertain


def hours(count):
    return Figure("gpu_hours", count, "h", "given")


def test_everything_is_a_range_and_says_its_formula():
    found = energy(hours(1000.0), chip("h100-sxm"), "france")
    assert set(found) == {"energy_kwh", "co2_t", "water_m3", "embodied_t"}
    for figure in found.values():
        assert isinstance(figure.value, Uncertain)
        assert 0 < figure.value.range().p10 < figure.value.range().p90
        assert figure.inputs


def test_what_bloom_reported_lies_in_the_range():
    """433.2 MWh of the GPUs at their TDP and 256.6 MWh of the idle rest, 24.7 + 14.6 t at 57 g/kWh (arXiv 2211.02001)."""
    found = energy(hours(1_082_990.0), chip("a100-sxm-80"), "france")
    for name, reported in (("energy_kwh", 689_800), ("co2_t", 39.3), ("embodied_t", 11.2)):
        bounds = found[name].value.range()
        assert bounds.p10 < reported < bounds.p90, name


def test_what_meta_reported_for_llama_3_1_405b_lies_in_the_range():
    """30.84 M hours of H100: 8,930 t, which is its TDP at 413 g/kWh (model card)."""
    bounds = energy(hours(30.84e6), chip("h100-sxm"), "us")["co2_t"].value.range()
    assert bounds.p10 < 8930 < bounds.p90


@pytest.mark.parametrize(("name", "kw"), [("b200", 2.17), ("mi300x", 1.79)])
def test_what_operators_provision_is_at_most_our_upper_end(name, kw):
    """Power that a site must provide for a chip lies above what it draws: InferenceX's figures bound ours from above."""
    assert (
        energy(hours(1.0), chip(name))["energy_kwh"].value.range().p50
        < kw
        < 1.6 * energy(hours(1.0), chip(name))["energy_kwh"].value.range().p90
    )


def test_places_differ_as_their_grids_do_in_every_world():
    france, china = (energy(hours(10.0), chip("h20"), place)["co2_t"] for place in ("france", "china"))
    assert (china.value - france.value).range().p10 > 0
    assert "France, 2023" in str(france.note)


def test_every_grid_has_its_year_and_sources():
    for found in grids().values():
        assert found.year
        assert found.carbon.source
        assert found.water.source
        assert found.carbon.low < found.carbon.mode < found.carbon.high


def test_an_unknown_place_names_those_there_are():
    with pytest.raises(UserError, match="france"):
        grid("Frankreich")


def test_a_measurement_takes_the_place_of_assumptions():
    events = [
        {"event": "stage_end", "costs": {"wall_s": 100.0, "energy_joules": 2000.0, "energy_source": "measured (RAPL, whole processor)"}},
        {"event": "stage_end", "costs": {"wall_s": 300.0, "energy_joules": 10_000.0, "energy_source": "measured (RAPL, whole processor)"}},
        {"event": "stage_end", "costs": {"wall_s": 9.0, "energy_joules": 1.0, "energy_source": "estimated (5 W per busy core)"}},
        {"event": "step", "step": 1},
    ]
    watts = measured_power(events)
    source = "2 stages of a run: measured (RAPL, whole processor)"
    assert replace(watts, source=str(watts.source)) == Input("measured_watts", 30.0, "W", source, "measured")
    found = energy(hours(1.0), chip("xeon-amx"), watts=watts)["energy_kwh"]
    assert 0.03 < found.value.range().p10 < found.value.range().p90 < 0.05


def test_a_runs_record_takes_the_place_of_the_data_sheet(tmp_path):
    costs = {"wall_s": 10.0, "energy_joules": 6000.0, "accelerators": 2, "energy_source": "measured (NVML)"}
    (tmp_path / "record.jsonl").write_text(json.dumps({"event": "stage_end", "costs": costs}) + "\n", encoding="utf-8")
    measured = bill(hours(1000.0), chip("h800-sxm"), rent_of(None, "world", str(tmp_path)))["energy_kwh"]
    drawn = next(one for one in measured.inputs if one.name == "watts_per_device")
    assert drawn.value == 300.0
    (tmp_path / "record.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="no stage whose energy was measured"):
        rent_of(None, "world", str(tmp_path))
    with pytest.raises(UserError, match="no record to read"):
        rent_of(None, "world", str(tmp_path / "nowhere"))


def test_an_estimate_is_no_measurement():
    mixed = "measured (RAPL, whole processor), the accelerator estimated at 300 W"
    assert measured_power([]) is None
    assert measured_power([{"event": "stage_end", "costs": {"wall_s": 1.0, "energy_joules": 1.0, "energy_source": mixed}}]) is None
