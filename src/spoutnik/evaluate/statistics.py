"""Uncertainty of what was counted."""

import math
from collections.abc import Sequence

NORMAL = 1.959964
"""The normal distribution's 97.5 % quantile."""


def wilson(correct: float, n: float, z: float = NORMAL) -> tuple[float, float]:
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


def share_interval(values: Sequence[float], most: int) -> tuple[float, float]:
    """95 % interval of the mean of `values`, one of [0, 1] a problem, each made of at most `most` answers.

    Answers to one problem are alike, so problems are counted, not answers (Miller 2024, arXiv 2411.00640, section 2.2). Where a problem
    counts 0 or 1 this is Wilson's interval. Else it is Wilson's for as many independent answers as have the variance that is found between
    the problems' means, at least one a problem and at most all (Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3), with
    Student's quantile. It stays within [0, 1] and never has no width. For few problems with rare successes it is too narrow (in simulations
    it held the truth in 85 of 100 cases for 30 problems of which a few are solved now and then and the rest never).
    """
    n = len(values)
    if all(value in (0, 1) for value in values):
        return wilson(sum(values), n)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n
    alone = mean * (1 - mean)
    counted = min(max(alone / variance if variance else n * most, n), n * most)
    return wilson(mean * counted, counted, student(n - 1))


def mean_interval(values: Sequence[float], most: int) -> tuple[float, float]:
    """95 % interval of a mean over problems: `share_interval` where all values are shares, else Student's, without width for one value."""
    if all(0 <= value <= 1 for value in values):
        return share_interval(values, most)
    n = len(values)
    mean = math.fsum(values) / n
    half = student(n - 1) * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n)
    return mean - half, mean + half


def student(degrees: int) -> float:
    """Student's 97.5 % quantile, from the normal one (Abramowitz and Stegun 1964, 26.7.5): at most 0.3 % off.

    Four degrees at least: below, the terms that are left out matter.
    """
    z, n = NORMAL, max(degrees, 4)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2) + third


def pass_at(correct: int, n: int, k: int) -> float:
    """Chance that k of n answers, drawn without replacement, hold one of the `correct` ones.

    The unbiased estimate of pass@k of one problem (Chen et al. 2021, arXiv 2107.03374, equation 1), as a product that cannot overflow.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} answers with {correct} right ones is nothing")
    return 1 - math.prod(1 - k / place for place in range(n - correct + 1, n + 1))
