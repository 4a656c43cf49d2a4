"""Costs add up over resumptions, and energy says where its figure comes from."""

import mmap
import time
from contextlib import contextmanager

import pytest

from spoutnik.recipe import Price
from spoutnik.run.energy import EnergyMeter
from spoutnik.run.ledger import Ledger, read_costs
from spoutnik.run.machine import peak_memory


def counter(root, microjoules):
    zone = root / "intel-rapl:0"
    zone.mkdir(exist_ok=True, parents=True)
    (zone / "energy_uj").write_text(str(microjoules))
    (zone / "max_energy_range_uj").write_text("1000000")
    return root


def test_costs_add_up_over_resumptions(tmp_path):
    path = tmp_path / "ledger.json"
    for _ in range(3):
        ledger = Ledger(path, Price(cpu_core_hour=3600.0, currency="CHF"), EnergyMeter(tmp_path / "none"))
        ledger.add(tokens=10, flops=1e9)
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        ledger.save()
    costs = read_costs(path)
    assert (costs.tokens, costs.flops, costs.resumptions, costs.currency) == (30, 3e9, 2, "CHF")
    assert costs.cpu_s >= 0.14
    assert costs.money == pytest.approx(costs.wall_s * costs.cores)


@contextmanager
def hold(size):
    """So many bytes from the system itself: an allocator may keep what is given back to it."""
    with mmap.mmap(-1, size) as held:
        for _ in range(size >> 20):
            held.write(b"x" * (1 << 20))
        yield


@pytest.mark.skipif(peak_memory() == 0, reason="the system does not say how much a process held")
def test_the_most_memory_that_was_held_is_a_stages_own_and_is_kept_when_it_is_freed(tmp_path):
    with hold(200 << 20):
        before = Ledger(tmp_path / "one.json", Price()).save().peak_memory
    ledger = Ledger(tmp_path / "two.json", Price())
    assert ledger.save().peak_memory < before - (150 << 20)
    with hold(300 << 20):
        pass
    assert ledger.save().peak_memory > before + (50 << 20)


def test_estimated_energy_is_labelled_with_its_rate_and_follows_processor_time(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json", Price(kwh=3.6e6, watts_per_core=7), EnergyMeter(tmp_path / "none"))
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    costs = ledger.save()
    assert costs.energy_source == "estimated (7 W per busy core)"
    assert costs.energy_joules == pytest.approx(7 * costs.cpu_s)
    assert costs.money == pytest.approx(costs.energy_joules)


@pytest.mark.parametrize(("watts", "said"), [(300, "the accelerator estimated at 300 W"), (0, "the accelerator not counted")])
def test_an_accelerator_is_charged_by_the_hour_and_its_energy_is_an_estimate_that_says_so(tmp_path, watts, said):
    price = Price(accelerator_hour=7200.0, accelerator_watts=watts, watts_per_core=5)
    costs = Ledger(tmp_path / "ledger.json", price, EnergyMeter(tmp_path / "none"), accelerators=1).save()
    assert costs.energy_source == f"estimated (5 W per busy core), {said}"
    assert costs.energy_joules == pytest.approx(costs.cpu_s * 5 + costs.wall_s * watts)
    assert costs.money == pytest.approx(costs.wall_s * 2)


def test_a_counter_is_read_as_measured_and_survives_its_overflow(tmp_path):
    root = counter(tmp_path / "powercap", 900_000)
    (root / "intel-rapl:0:0").mkdir()  # a part of the package: already in its sum
    (root / "intel-rapl:0:0" / "energy_uj").write_text("5")
    meter = EnergyMeter(root)
    ledger = Ledger(tmp_path / "ledger.json", Price(), meter)
    counter(root, 100_000)
    assert ledger.save().energy_joules == pytest.approx(0.2)
    counter(root, 400_000)
    costs = ledger.save()
    assert costs.energy_joules == pytest.approx(0.5)
    assert costs.energy_source.startswith("measured")
