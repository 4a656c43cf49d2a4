"""Scaling laws: for an amount of compute, the size and the tokens that reach the lowest loss, and how sure that is.

Chinchilla's third approach as refitted by Epoch AI (arXiv 2404.10102), L = E + A / N^a + B / D^b with C = 6 N D; DeepSeek LLM's
(arXiv 2401.02954) in operations a token, M; fine-grained mixtures of experts (arXiv 2402.07871); and a ratio for small models.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spoutnik.errors import UserError
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import Number, normal, triangular

EPOCH = "Epoch AI's refit of Chinchilla, arXiv 2404.10102"
DEEPSEEK = "DeepSeek LLM, arXiv 2401.02954, section 3"
KRAJEWSKI = "arXiv 2402.07871; constants recalled, and they give back its factor of 20 over dense models at 1e20 FLOP"
SMALL = "nanochat's refits for small models (github.com/karpathy/nanochat)"
A, B, E, ALPHA, BETA = 482.01, 2085.43, 1.8172, 0.3478, 0.3658
SHARE = BETA / (ALPHA + BETA)
"""Of a growing budget, the part of its exponent that goes into size: 0.513; Epoch's standard error is 0.020."""
SHARE_ERROR = 0.020
PIVOT = 1e21
"""FLOP at which the fit's data lie, so that its exponent turns there. The data end at about 1e22 (assumed, not Epoch's)."""
HELD, GRANULARITY = 43.0, 8.0
"""arXiv 2402.07871 fits 64 times as many expert parameters as one token uses: with attention, 43 times as many in all (12 d^2 of 516)."""
MOE: Mapping[str, float] = MappingProxyType({"a": 18.1, "alpha": 0.115, "b": 30.8, "beta": 0.147, "g": 2.1, "gamma": 0.58, "c": 0.47})
DENSE: Mapping[str, float] = MappingProxyType({"a": 16.3, "alpha": 0.126, "b": 26.7, "beta": 0.127, "c": 0.47})

SHARE_OF_PEAK = Input(
    "share_of_peak",
    triangular(0.20, 0.36, 0.46, name="share of peak"),
    "",
    "6 N D over paid GPU-hours: Llama 2 70B 43 %, DeepSeek-V3 and Llama 3.1 405B 35 %, BLOOM 32 %, Llama 4 Scout 23 %",
    "computed",
)
"""Of the 16-bit peak, over all hours that published runs paid for: utilisation and stops together."""


@dataclass(frozen=True)
class Optimum:
    """What one law advises for a budget. `figures`: size (parameters, or operations a token), tokens, ratio, and what else it says."""

    law: str
    source: str
    status: Status
    figures: dict[str, Figure]


def loss(parameters: float, tokens: float) -> float:
    """Chinchilla's loss in nats a token, as refitted: of a dense model of that size after that many tokens."""
    return E + A / parameters**ALPHA + B / tokens**BETA


def best(flop: Figure) -> tuple[Optimum, ...]:
    """What each law advises for `flop`. Raises UserError for a budget that is not positive."""
    if not flop.middle > 0:
        raise UserError("A budget must be positive, as 1e24flop or 5.5e6usd.")
    return (chinchilla(flop), deepseek(flop), experts(flop), small(flop))


def chinchilla(flop: Figure) -> Optimum:
    """Size N = G (C/6)^share, tokens D = C / 6N; the share's standard error makes the range, widening away from the fit's data."""
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    share = normal(SHARE, SHARE_ERROR, name="scaling exponent")
    constants = (
        Input("A", A, "", EPOCH, "disclosed"), Input("B", B, "", EPOCH, "disclosed"), Input("alpha", ALPHA, "", EPOCH, "disclosed"),
        Input("beta", BETA, "", EPOCH, "disclosed"), Input("share", share, "", f"{EPOCH}: 0.513 +- 0.020", "disclosed"),
        Input("pivot", PIVOT, "FLOP", "where the fit's data lie", "assumed"),
    )  # fmt: skip
    at_pivot = scale * (PIVOT / 6) ** SHARE
    size = Figure("size", at_pivot * (flop.value / PIVOT) ** share, "parameters",
                  "G * (pivot / 6)^0.513 * (flop / pivot)^share, G = (alpha * A / (beta * B))^(1 / (alpha + beta))", (flop, *constants),
                  "The range is that of the exponent alone.")  # fmt: skip
    found = {"size": size} | _rest(flop, size)
    middle = scale * (flop.middle / 6) ** SHARE
    reached = loss(middle, flop.middle / 6 / middle)
    found["loss"] = Figure("loss", reached, "nats/token", "1.8172 + A / size^alpha + B / tokens^beta", constants[:4],
                           "At the middle of the range; of their data, no other.")  # fmt: skip
    return Optimum("chinchilla", EPOCH, "disclosed", found)


def deepseek(flop: Figure) -> Optimum:
    """Operations a token M = 0.1715 C^0.5243 and tokens D = 5.8316 C^0.4757; learning rate 0.3118 C^-0.1250, batch 0.2920 C^0.3271."""
    given = Input("constants", "0.1715, 0.5243, 5.8316, 0.4757", "", f"{DEEPSEEK}; recalled and not checked", "assumed")
    known = Input("constants", "0.3118, -0.1250, 0.2920, 0.3271", "", DEEPSEEK, "disclosed")
    each = Figure("operations", 0.1715 * flop.value**0.5243, "FLOP/token", "0.1715 * flop^0.5243", (flop, given), "Without embeddings.")
    tokens = Figure("tokens", 5.8316 * flop.value**0.4757, "tokens", "5.8316 * flop^0.4757", (flop, given))
    size = Figure("size", each.value / 6, "parameters", "operations / 6", (each,), "A little less: attention's own operations are in it.")
    rate = Figure("learning_rate", 0.3118 * flop.value**-0.1250, "", "0.3118 * flop^-0.1250", (flop, known))
    batch = Figure("batch_tokens", 0.2920 * flop.value**0.3271, "tokens", "0.2920 * flop^0.3271", (flop, known))
    found = (size, tokens, _ratio(size, tokens), each, rate, batch)
    return Optimum("deepseek", DEEPSEEK, "assumed", {figure.name: figure for figure in found})


def experts(flop: Figure) -> Optimum:
    """Active size and tokens of a fine-grained mixture with 64-fold experts, and how many times the compute a dense model needs.

    Both by the same paper's fits, without the router's own operations.
    """
    at_middle, reached = _best_mixture(flop.middle, GRANULARITY)
    active = at_middle * (flop.value / flop.middle) ** (MOE["beta"] / (MOE["alpha"] + MOE["beta"]))
    given = Input("constants", ", ".join(f"{key} {value:g}" for key, value in MOE.items()), "", KRAJEWSKI, "assumed")
    size = Figure("size", active, "parameters", "argmin of c + (g / G^gamma + a) / (43 size)^alpha + b / tokens^beta",
                  (flop, given), "Active for a token; 64-fold experts, each an eighth of a layer wide.")  # fmt: skip
    total = Figure("size_total", HELD * active, "parameters", "43 * size", (size,))
    tokens = Figure("tokens", flop.value / 6 / active, "tokens", "flop / (6 * size)", (flop, size))
    same = _dense_compute(reached)
    gain = Figure("dense_compute", same / flop.middle, "", "compute with which the dense fit reaches the same loss / flop", (flop, given),
                  "Far beyond the paper's runs this is extrapolation.")  # fmt: skip
    return Optimum("experts", KRAJEWSKI, "assumed", {f.name: f for f in (size, total, tokens, _ratio(size, tokens), gain)})


def small(flop: Figure) -> Optimum:
    """8 to 12 tokens for each parameter outside the embeddings."""
    ratio = triangular(8, 10.5, 12, name="tokens per parameter")
    given = Input("ratio", ratio, "tokens/parameter", SMALL, "disclosed")
    size = Figure(
        "size", (flop.value / (6 * ratio)) ** 0.5, "parameters", "(flop / (6 * ratio))^(1/2)", (flop, given), "Without embeddings."
    )
    return Optimum("small", SMALL, "disclosed", {"size": size} | _rest(flop, size))


def at_size(flop: Figure, parameters: float) -> dict[str, Figure]:
    """A model of another size than the best for a budget: its tokens, its loss by Chinchilla's law, and the compute that wastes.

    `excess`: by how much less compute the best size reaches the same loss. Raises UserError for a size that is not positive.
    """
    if not parameters > 0:
        raise UserError("--size must be a positive number of parameters, as in 8B.")
    given = Input("size", parameters, "parameters", "--size", "assumed")
    tokens = Figure("tokens", flop.value / (6 * parameters), "tokens", "flop / (6 * size)", (flop, given))
    reached = loss(parameters, flop.middle / 6 / parameters)
    found = Figure("loss", reached, "nats/token", "1.8172 + A / size^alpha + B / tokens^beta", (given, tokens))
    least = _least_compute(reached)
    excess = Figure("excess", flop.middle / least, "", "flop / least compute that reaches this loss", (flop, found),
                    "What a smaller model costs more to train it may save when it answers.")  # fmt: skip
    return {figure.name: figure for figure in (tokens, found, excess)}


def _rest(flop: Figure, size: Figure) -> dict[str, Figure]:
    tokens = Figure("tokens", flop.value / (6 * size.value), "tokens", "flop / (6 * size)", (flop, size))
    return {"tokens": tokens, "ratio": _ratio(size, tokens)}


def _ratio(size: Figure, tokens: Figure) -> Figure:
    return Figure("ratio", tokens.value / size.value, "tokens/parameter", "tokens / size", (tokens, size))


def _least_compute(reached: float) -> float:
    """The compute with which the best size reaches a loss, by bisection over its logarithm."""
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))

    def at(flop: float) -> float:
        size = scale * (flop / 6) ** SHARE
        return loss(size, flop / 6 / size)

    return _bisect(at, reached)


def _best_mixture(flop: float, granularity: float) -> tuple[float, float]:
    """(active parameters, loss) of the best mixture for a budget: the sum of two powers has its minimum in closed form."""
    factor = (MOE["g"] / granularity ** MOE["gamma"] + MOE["a"]) / HELD ** MOE["alpha"]
    return _least(factor, MOE["alpha"], MOE["b"], MOE["beta"], MOE["c"], flop)


def _dense_compute(reached: float) -> float:
    return _bisect(lambda flop: _least(DENSE["a"], DENSE["alpha"], DENSE["b"], DENSE["beta"], DENSE["c"], flop)[1], reached)


def _least(a: float, alpha: float, b: float, beta: float, c: float, flop: float) -> tuple[float, float]:
    """(size, loss) that minimise c + a / size^alpha + b / tokens^beta at 6 size tokens = flop."""
    size = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flop / 6) ** (beta / (alpha + beta))
    return size, c + a / size**alpha + b / (flop / 6 / size) ** beta


def _bisect(loss_at: Callable[[float], float], reached: float) -> float:
    low, high = math.log(1e10), math.log(1e40)
    for _ in range(200):
        half = (low + high) / 2
        low, high = (half, high) if loss_at(math.exp(half)) > reached else (low, half)
    return math.exp(low)


def compute_for(dollars: float, price: Input, peak: Input) -> Figure:
    """The 6 N D that money buys: hours at a price, times the share of the peak that published runs reached over all their paid hours."""
    if not dollars > 0:
        raise UserError("A budget must be positive, as 1e24flop or 5.5e6usd.")
    if isinstance(price.value, (int, float)) and not price.value > 0:
        raise UserError("A budget of money needs a --price above 0, as in 2.0; or give the budget in FLOP.")
    hours = Figure(
        "gpu_hours",
        dollars / _number(price),
        "GPU-hours",
        "budget / price",
        (Input("budget", dollars, "USD", "--budget", "assumed"), price),
    )
    value = hours.value * (_number(SHARE_OF_PEAK) * (_number(peak) * 3.6e15))
    return Figure("flop", value, "FLOP", f"gpu_hours * 3600 * {peak.name} * share_of_peak", (hours, peak, SHARE_OF_PEAK))


def _number(one: Input) -> Number:
    assert not isinstance(one.value, str)
    return one.value
