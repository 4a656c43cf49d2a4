"""From hours of devices to money, energy and carbon dioxide."""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.plan.amount import amount
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import triangular


@dataclass(frozen=True)
class Rent:
    """What an hour of a device costs; None: the spread of the chip's published prices."""

    usd_per_gpu_hour: float | None = None
    source: str = "--price"
    status: Status = "assumed"

    def __post_init__(self) -> None:
        if self.usd_per_gpu_hour is not None and self.usd_per_gpu_hour < 0:
            raise UserError(f"--price {self.usd_per_gpu_hour:g} is below 0; give USD for an hour of one device, as in 2.0.")


def rent_of(price: str | None) -> Rent:
    """What --price says."""
    return Rent() if price is None else Rent(amount(price, "--price"))


def rate_of(chip: Chip, rent: Rent) -> Figure:
    """USD for one hour of one device."""
    if rent.usd_per_gpu_hour is not None:
        given = Input("price", rent.usd_per_gpu_hour, "USD", rent.source, rent.status)
        return Figure("usd_per_gpu_hour", rent.usd_per_gpu_hour, "USD", "price", (given,))
    price = chip.price_input()
    assert chip.price is not None
    return Figure("usd_per_gpu_hour", chip.price.distribution(), "USD", price.name, (price,))


def bill(hours: Figure, chip: Chip, rent: Rent) -> dict[str, Figure]:
    """cost_usd, energy_kwh and co2_t of so many hours. A device draws a share of its TDP; host and building come on top."""
    rate = rate_of(chip, rent)
    factors = {
        "draw": triangular(0.5, 0.75, 0.95, name="utilisation"),
        "host": triangular(1.1, 1.2, 1.4, name="host"),
        "pue": triangular(1.06, 1.2, 1.5, name="pue"),
    }
    kilowatts = factors["draw"] * factors["host"] * factors["pue"] * (chip.tdp_w / 1000)
    parts = (chip.input("tdp_w"), *(Input(name, value, "", "", "assumed") for name, value in factors.items()))
    power = Figure("kw_per_device", kilowatts, "kW", "tdp_w * draw * host * pue / 1000", parts)
    energy = Figure("energy_kwh", kilowatts * hours.value, "kWh", "gpu_hours * kw_per_device", (hours, power))
    grid = triangular(0.05, 0.40, 0.65, name="grid")
    place = Input("grid", grid, "kg/kWh", "", "assumed")
    return {
        "cost_usd": Figure("cost_usd", hours.value * rate.value, "USD", "gpu_hours * usd_per_gpu_hour", (hours, rate)),
        "energy_kwh": energy,
        "co2_t": Figure("co2_t", energy.value * grid / 1000, "tCO2", "energy_kwh * grid / 1000", (energy, place)),
    }
