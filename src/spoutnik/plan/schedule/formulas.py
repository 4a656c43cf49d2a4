"""The closed formulas for bubbles and activations, and where they hold.

Sources: the table in deepseek-ai/DualPipe (1F1B, ZB1P, DualPipe, DualPipeV), Narayanan et al. 2021 for interleaving, Qi et al. 2024 for
ZBV.
Simulation confirms each of them in the range that `holds` states and contradicts it outside: with backwards for weights longer than
forwards ZB1P waits longer than its formula, and DualPipe's takes forwards to last as long as backwards for inputs. Plans therefore take
the simulated bubble.
"""

from spoutnik.plan.schedule.cells import Durations


def bubble(name: str, devices: int, durations: Durations) -> float:
    """How long the devices wait in a step. Durations are those of one stage, of which some schedules give a device several."""
    forward, backward, weights, pair = durations.forward, durations.backward, durations.weights, durations.of("FB")
    return {
        "1f1b": (devices - 1) * (forward + backward),
        "interleaved": (devices - 1) * (forward + backward),
        "zb1p": (devices - 1) * (forward + backward - 2 * weights),
        "zbv": 0.0,
        "dualpipe": (devices / 2 - 1) * (pair + backward - 3 * weights),
        "dualpipev": (devices - 1) * (pair + backward - 3 * weights),
    }[name]


def holds(name: str, devices: int, microbatches: int, durations: Durations) -> bool:
    """Whether the formula is exact for these durations: of the whole step, for zbv between each device's own first start and last end."""
    forward, weights = durations.forward, durations.weights
    inputs = durations.backward - weights
    if name in ("1f1b", "interleaved"):
        return True
    if name == "zb1p":
        return microbatches >= devices and weights <= min(forward, inputs)
    if name == "zbv":
        return microbatches >= 2 * devices and forward == inputs == weights
    return weights <= forward == inputs and durations.of("FB") <= forward + durations.backward


def activations(name: str, devices: int, chunks: int = 2) -> int:
    """The most activations that a device holds, in microbatches of one stage (of which it has `chunks_per_device`)."""
    return {
        "1f1b": devices,
        "interleaved": devices * chunks + devices - 1,
        "zb1p": devices,
        "zbv": 2 * devices,
        "dualpipe": devices + 1,
        "dualpipev": 2 * devices + 1,
    }[name]
