"""Numbers that are not known exactly: 4,096 samples each, with arithmetic, so that a result's range follows from those of its inputs.

A distribution has a name ("mfu", "price", "grid"), and the name alone decides which of its samples go together: two plans that draw the
same name draw the same world, so their difference is that of the plans. Samples are stratified, hence quantiles are exact.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from spoutnik.errors import UserError

SAMPLES = 4096
Array = NDArray[np.float64]
Number = Union[float, "Uncertain"]


@dataclass(frozen=True)
class Range:
    """One value in ten is below p10, one in two below p50, nine in ten below p90."""

    p10: float
    p50: float
    p90: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"p10": self.p10, "p50": self.p50, "p90": self.p90}


class Uncertain:
    """A quantity as `SAMPLES` draws of it; + - * / ** work with numbers and with other quantities, draw by draw."""

    def __init__(self, samples: Array):
        self.samples = samples

    def quantile(self, share: float) -> float:
        """The value that `share` (0 to 1) of the draws are below."""
        return float(np.quantile(self.samples, share))

    def range(self) -> Range:
        """P10, P50 and P90."""
        low, middle, high = np.quantile(self.samples, (0.1, 0.5, 0.9))
        return Range(float(low), float(middle), float(high))

    def mean(self) -> float:
        """The mean of the draws."""
        return float(self.samples.mean())

    def chance_above(self, threshold: float) -> float:
        """The share of draws above a threshold."""
        return float((self.samples > threshold).mean())

    def __repr__(self) -> str:
        found = self.range()
        return f"Uncertain({found.p10:.4g}, {found.p50:.4g}, {found.p90:.4g})"

    def __add__(self, other: Number) -> "Uncertain":
        return Uncertain(self.samples + samples_of(other))

    def __sub__(self, other: Number) -> "Uncertain":
        return Uncertain(self.samples - samples_of(other))

    def __rsub__(self, other: Number) -> "Uncertain":
        return Uncertain(samples_of(other) - self.samples)

    def __mul__(self, other: Number) -> "Uncertain":
        return Uncertain(self.samples * samples_of(other))

    def __truediv__(self, other: Number) -> "Uncertain":
        return Uncertain(self.samples / samples_of(other))

    def __rtruediv__(self, other: Number) -> "Uncertain":
        return Uncertain(samples_of(other) / self.samples)

    def __pow__(self, other: Number) -> "Uncertain":
        return Uncertain(self.samples ** samples_of(other))

    def __rpow__(self, other: Number) -> "Uncertain":
        return Uncertain(samples_of(other) ** self.samples)

    def __neg__(self) -> "Uncertain":
        return Uncertain(-self.samples)

    __radd__, __rmul__ = __add__, __mul__


def samples_of(value: Number) -> Array | float:
    """The draws of an uncertain quantity; a number is itself."""
    return value.samples if isinstance(value, Uncertain) else value


def middle(value: Number) -> float:
    """P50 of an uncertain quantity; a number is itself."""
    return value.quantile(0.5) if isinstance(value, Uncertain) else float(value)


def apply(function: Callable[..., Any], *values: Number) -> Uncertain:
    """A NumPy function of quantities, draw by draw: `apply(np.maximum, compute, memory)`."""
    return Uncertain(np.broadcast_to(function(*(samples_of(value) for value in values)), (SAMPLES,)).astype(np.float64))


def fixed(value: float) -> Uncertain:
    """A quantity that is known."""
    return Uncertain(np.full(SAMPLES, float(value)))


def uniform(low: float, high: float, *, name: str) -> Uncertain:
    """Anything between two bounds, alike."""
    _require_order(name, low, high)
    return Uncertain(low + (high - low) * shares(name))


def triangular(low: float, mode: float, high: float, *, name: str) -> Uncertain:
    """Between two bounds, most likely near `mode`."""
    _require_order(name, low, mode, high)
    if high == low:
        return fixed(low)
    share, turn = shares(name), (mode - low) / (high - low)
    rising = low + np.sqrt(share * (high - low) * (mode - low))
    falling = high - np.sqrt((1 - share) * (high - low) * (high - mode))
    return Uncertain(np.where(share < turn, rising, falling))


def lognormal(p10: float, p50: float, p90: float, *, name: str) -> Uncertain:
    """Positive, without bounds, with these quantiles: a log-normal distribution whose two halves may differ in width."""
    _require_order(name, p10, p50, p90)
    if p10 <= 0:
        raise UserError("{name} has a lower end of {p10:g}; a quantity of this kind must be positive.", name=name, p10=p10)
    deviations = _deviations(name)
    unit = NormalDist().inv_cdf(0.9)
    width = np.full(SAMPLES, math.log(p90 / p50) / unit)
    width[deviations < 0] = math.log(p50 / p10) / unit
    return Uncertain(p50 * np.exp(width * deviations))


def normal(mean: float, deviation: float, *, name: str) -> Uncertain:
    """A quantity with a mean and a standard error."""
    return Uncertain(mean + deviation * _deviations(name))


@cache
def shares(name: str) -> Array:
    """The position (0 to 1) of each draw within the distribution of this name: a stratified sample in an order that the name decides."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(np.arange(SAMPLES))
    result: Array = (order.astype(np.float64) + 0.5) / SAMPLES
    result.flags.writeable = False
    return result


@cache
def _normal_quantiles() -> Array:
    law = NormalDist()
    return np.array([law.inv_cdf((position + 0.5) / SAMPLES) for position in range(SAMPLES)])


def _deviations(name: str) -> Array:
    """Standard normal draws in the order of `name`."""
    return _normal_quantiles()[(shares(name) * SAMPLES).astype(np.int64)]


def _require_order(name: str, *bounds: float) -> None:
    if list(bounds) != sorted(bounds):
        raise UserError(
            "{name} is given as {bounds}; write the lowest first, then upwards.",
            name=name,
            bounds=", ".join(f"{bound:g}" for bound in bounds),
        )
