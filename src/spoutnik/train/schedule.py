"""Learning-rate schedules as a factor of the peak, pure functions of the step."""

import math


def wsd(step: int, steps: int, warmup: float, decay: float) -> float:
    """Warm-up, stable, decay (arXiv 2404.06395): linear up over `warmup` of the steps, constant, linear down to 0 over the last `decay`."""
    rise, fall = max(1, round(warmup * steps)), round(decay * steps)
    return min(1.0, (step + 1) / rise, (steps - step) / (fall + 1))


def cosine(step: int, steps: int, warmup: float, floor: float = 0.1) -> float:
    """Linear warm-up, then half a cosine down to `floor` (DeepSeek-V3, section 4.2, decays to a tenth)."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def factor(schedule: str, step: int, steps: int, warmup: float, decay: float = 0.2) -> float:
    """The named schedule, `wsd` or `cosine`, at `step` of `steps`."""
    return wsd(step, steps, warmup, decay) if schedule == "wsd" else cosine(step, steps, warmup)
