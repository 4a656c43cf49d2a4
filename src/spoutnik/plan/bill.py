"""From hours of devices to money, energy and carbon dioxide."""

from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.plan.amount import amount
from spoutnik.plan.chips import Chip
from spoutnik.plan.energy import WORLD, energy, measured_power
from spoutnik.plan.figure import Figure, Input, Status


@dataclass(frozen=True)
class Rent:
    """What an hour of a device costs (None: the spread of the chip's published prices), and where it stands."""

    usd_per_gpu_hour: float | None = None
    source: str = "--price"
    status: Status = "assumed"
    location: str = WORLD
    watts: Input | None = None
    """What a device was measured to draw in a run, instead of the chip's data sheet."""

    def __post_init__(self) -> None:
        if self.usd_per_gpu_hour is not None and self.usd_per_gpu_hour < 0:
            raise UserError(
                "--price {price:g} is below 0; give USD for an hour of one device, as in 2.0.",
                price=self.usd_per_gpu_hour,
            )


def rent_of(price: str | None, location: str, measured: str | None = None) -> Rent:
    """What --price, --location and --measured say. Raises UserError where the run measured no energy."""
    watts = None if measured is None else _watts_of(Path(measured))
    return Rent(None if price is None else amount(price, "--price"), location=location, watts=watts)


def _watts_of(run: Path) -> Input:
    from spoutnik.run.record import read

    try:
        watts = measured_power(read(run / "record.jsonl" if run.is_dir() else run))
    except (OSError, ValueError) as error:
        raise UserError("--measured {run} has no record to read ({error}); give the folder of a run.", run=run, error=str(error)) from None
    if watts is None:
        raise UserError(
            "--measured {run} holds no stage whose energy was measured; give a run on a machine with counters, or leave it out.", run=run
        )
    return watts


def rate_of(chip: Chip, rent: Rent) -> Figure:
    """USD for one hour of one device."""
    if rent.usd_per_gpu_hour is not None:
        given = Input("price", rent.usd_per_gpu_hour, "USD", rent.source, rent.status)
        return Figure("usd_per_gpu_hour", rent.usd_per_gpu_hour, "USD", "price", (given,))
    price = chip.price_input()
    assert chip.price is not None
    return Figure("usd_per_gpu_hour", chip.price.distribution(), "USD", price.name, (price,))


def bill(hours: Figure, chip: Chip, rent: Rent) -> dict[str, Figure]:
    """cost_usd, energy_kwh, co2_t, water_m3 and embodied_t of so many hours of a chip."""
    rate = rate_of(chip, rent)
    cost = Figure("cost_usd", hours.value * rate.value, "USD", f"{hours.name} * usd_per_gpu_hour", (hours, rate))
    return {"cost_usd": cost} | energy(hours, chip, rent.location, rent.watts)
