"""Two models on the same problems: how far apart they are, and whether chance alone would do that.

What is compared are whole numbers, the right answers to each problem. A difference between problems, which is most of the variance, is the
same for both models and cancels.
"""

import math
from collections.abc import Sequence

import numpy as np

from spoutnik.evaluate.statistics import student


def sign_flip_p(differences: Sequence[int]) -> float:
    """Two-sided p value of: neither model is better, so each problem's difference could as well have had the other sign.

    Exact, by the distribution of the sum over all 2^n choices of signs (Fisher's randomisation test for pairs). For differences of -1, 0
    and 1, one answer a problem, it is McNemar's exact test.
    """
    sizes = [abs(difference) for difference in differences if difference]
    reach = sum(sizes)
    chances = np.zeros(2 * reach + 1)  # of a sum from -reach to reach
    chances[reach] = 1.0
    for size in sizes:
        halves = chances / 2
        chances = np.zeros_like(chances)
        chances[size:] += halves[: len(halves) - size]
        chances[: len(halves) - size] += halves[size:]
    observed = abs(sum(differences))
    if observed == 0:
        return 1.0
    return min(1.0, 2 * float(chances[reach + observed :].sum()))


def difference_interval(differences: Sequence[int], k: int) -> tuple[float, float, float]:
    """(mean, low, high) of the difference between two shares of right answers, k to each problem, 95 %.

    Student's interval for the mean of the problems' differences, as if one more problem had gone each way by 1/sqrt(k), which is what
    chance moves a problem by. For k = 1 that is Bonett and Price's interval for paired proportions (2012, Journal of Educational and
    Behavioral Statistics 37), apart from Student's quantile. Without the two, models that agree everywhere would differ by 0 for certain.
    """
    n = len(differences)
    shares = [difference / k for difference in differences]
    mean, size = math.fsum(shares) / n, n + 2
    centre = math.fsum(shares) / size
    variance = (math.fsum(share * share for share in shares) + 2 / k) / size - centre * centre
    half = student(n - 1) * math.sqrt(variance / size)
    return mean, max(-1.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for being several: the chance of any wrong claim among them stays below the level (Holm 1979, Scand. J. Statistics 6)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
