"""A probe is measured once for a machine, kept, and measured again for another one."""

import json
from dataclasses import asdict, fields, replace

import pytest

from spoutnik.errors import UserError
from spoutnik.plan import probe as probing
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import chip
from spoutnik.plan.models import open_model
from spoutnik.plan.probe import Probe, figures, identity, probed, read_probe
from spoutnik.plan.serving import Service, plan_serving
from spoutnik.plan.training import plan_training
from spoutnik.train import speeds

KEPT = Probe(identity(), "2026-01-01T00:00Z", 2e11, 1e12, 1e11, 1e10, 0.02, 1e9, 2e9)


def keep(folder, probe):
    (folder / "probe.json").write_text(json.dumps(asdict(probe)), encoding="utf-8")


def test_the_kept_probe_of_this_machine_is_used_without_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "MODULE", "nothing.to.run")
    keep(tmp_path, KEPT)
    assert probed(folder=tmp_path) == KEPT


@pytest.mark.parametrize("broken", ["", "{}", "[1]", '{"identity": 3}'])
def test_what_is_no_probe_is_none(tmp_path, broken):
    (tmp_path / "probe.json").write_text(broken)
    assert read_probe(tmp_path / "probe.json") is None
    assert read_probe(tmp_path / "missing.json") is None


def test_another_machines_probe_is_measured_anew_and_kept(tmp_path, monkeypatch):
    module = tmp_path / "quick_speeds.py"
    found = {field.name: 1.5 for field in fields(Probe) if field.name not in ("identity", "date")}
    module.write_text(f"print({json.dumps(found)!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(probing, "MODULE", "quick_speeds")
    keep(tmp_path, replace(KEPT, identity="another machine"))
    made = probed(folder=tmp_path)
    assert (made.identity, made.bandwidth) == (identity(), 1.5)
    assert read_probe(tmp_path / "probe.json") == made


def test_a_measurement_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "MODULE", "nothing.to.run")
    with pytest.raises(UserError, match=r"cannot be measured: .*nothing"):
        probed(folder=tmp_path)


def test_every_measured_number_is_a_figure_that_says_how():
    shown = figures(KEPT)
    assert {figure.name for figure in shown} == {field.name for field in fields(Probe)} - {"identity", "date"}
    assert all(part.status == "measured" and KEPT.date in part.source for figure in shown for part in figure.inputs)


def test_what_is_measured_is_what_a_probe_holds_and_the_disk_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "SECONDS", 0.0)
    monkeypatch.setattr(speeds, "LARGE", 256)
    monkeypatch.setattr(speeds, "COPIED", 2**22)
    monkeypatch.setattr(speeds, "WRITTEN", 2**24)
    found = speeds.measure(tmp_path)
    assert Probe("here", "now", **found)
    assert all(value > 0 for value in found.values())
    assert list(tmp_path.iterdir()) == []


def test_this_machine_is_a_chip_once_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="run `spoutnik plan machine` once"):
        chip("this-machine")
    (tmp_path / "spoutnik").mkdir()
    keep(tmp_path / "spoutnik", KEPT)
    found = chip("this-machine")
    assert (found.rate("bf16"), found.bandwidth_tbs * 1e12, found.status) == (KEPT.gemm_bfloat16, KEPT.bandwidth, "measured")


def test_this_machine_answers_and_trains_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "spoutnik").mkdir()
    keep(tmp_path / "spoutnik", KEPT)
    here, small = chip("this-machine"), open_model("smollm2-135m")
    service = plan_serving(small, "x", here, Service(1e5, 1e5, prompt=128, context=256, speed=0.1), Rent(1.0))
    assert service.figures["gpu_hours"].middle >= 24 * 30
    assert plan_training(small, 1e9, here, 1, rent=Rent(1.0)).figures["gpu_hours"].middle > 0
    with pytest.raises(UserError, match="--count 1"):
        plan_training(small, 1e9, here, 2, rent=Rent(1.0))
