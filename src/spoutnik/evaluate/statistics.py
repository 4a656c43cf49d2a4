"""Uncertainty of what was counted."""

import math


def wilson(correct: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default (Wilson 1927). (0, 1) where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_ratio(both: int, first: int, second: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval for the ratio of two proportions counted on the same cases, 95 % by default; (0, inf) where nothing was counted.

    `both` cases succeeded twice, `first` only the first time, `second` only the second; the ratio is (both + first) / (both + second).
    Two Wilson intervals, each shortened to what the pairing leaves open (Bonett and Price 2006, Statistics in Medicine 25).
    """
    n, above, below = both + first + second, both + first, both + second
    joint = math.sqrt((first + second + 2) / ((above + 1) * (below + 1)))
    apart = sum(math.sqrt((1 - (each + 1) / (n + 2)) / (each + 1)) for each in (above, below))
    (low_above, high_above), (low_below, high_below) = (wilson(each, n, z * joint / apart) for each in (above, below))
    return low_above / high_below, high_above / low_below if low_below else math.inf
