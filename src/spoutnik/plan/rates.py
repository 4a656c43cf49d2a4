"""What engines reach of the roofline, and how busy a fleet is.

On Hopper the middle of both reaches is SGLang's published measurement of DeepSeek-V3 on 96 H100 (lmsys.org, 5 May 2025): 50,302 tokens/s a
node for prompts of 4,096 on 4 nodes, and 22,282 tokens/s a node written after prompts of 2,000 on 9 nodes with 256 requests a device. Least
and most are assumed. On other chips programs differ far more: InferenceX's tables (DeepSeek-R1 in FP8, 8k in, 1k out, read in November
2026) lie between a seventh and 1.4 times what Hopper's reach would give, and the range is wide enough to hold them. The fleet's load is
assumed; with its middle the roofline gives about the nodes of DeepSeek's own day of February 2025, so that day does not test it.
"""

from functools import cache

from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import lognormal, triangular

HOPPER = ("h100-sxm", "h100-pcie", "h800-sxm", "h200-sxm", "h20")
SGLANG = "lmsys.org, 5 May 2025: DeepSeek on 96 H100"
INFERENCEX = "InferenceX, DeepSeek-R1 FP8 8k/1k, B200, MI300X"
PREFILL_REACH = (0.33, 0.475, 0.60)
DECODE_REACH = (0.35, 0.554, 0.70)
OTHER_REACH = (0.08, 0.28, 0.60)
LOAD = (0.45, 0.70, 0.90)


def prefill_reach(chip: Chip) -> Figure:
    """Share of the roofline that an engine reaches while it reads prompts."""
    return _reach("prefill_reach", chip.name in HOPPER, PREFILL_REACH)


def decode_reach(chip: Chip) -> Figure:
    """Share of the roofline that an engine reaches while it writes."""
    return _reach("decode_reach", chip.name in HOPPER, DECODE_REACH)


@cache
def load() -> Figure:
    """Share of the hours that a fleet is full."""
    inputs = _inputs("fleet_load", ("least", "mode", "most"), LOAD, "", "assumed")
    return Figure("fleet_load", triangular(*LOAD, name="fleet_load"), "share", "triangular(least, mode, most)", inputs)


@cache
def _reach(name: str, measured: bool, ends: tuple[float, float, float]) -> Figure:
    if measured:
        inputs = _inputs(name, ("least", "mode", "most"), ends, SGLANG, "measured")
        return Figure(name, triangular(*ends, name=name), "share", "triangular(least, mode, most)", inputs)
    inputs = _inputs(name, ("p10", "p50", "p90"), OTHER_REACH, INFERENCEX, "assumed")
    return Figure(name, lognormal(*OTHER_REACH, name=name), "share", "lognormal(p10, p50, p90)", inputs)


def _inputs(name: str, places: tuple[str, ...], values: tuple[float, ...], source: str, status: Status) -> tuple[Input, ...]:
    """Of three points only the middle one is anybody's figure."""
    return tuple(
        Input(f"{name}_{place}", value, "share", source if index == 1 else "", status if index == 1 else "assumed")
        for index, (place, value) in enumerate(zip(places, values, strict=True))
    )
