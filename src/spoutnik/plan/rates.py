"""What engines reach of the roofline, and how busy a fleet is.

The middle of the two reaches is SGLang's published measurement of DeepSeek-V3 on 96 H100 (lmsys.org, 5 May 2025): 50,302 tokens/s a node
for prompts of 4,096 on 4 nodes, 22,282 tokens/s a node written after prompts of 2,000 on 9 nodes, 256 requests a device. Least and most are
assumed. The load is assumed: with its middle the roofline gives DeepSeek's own day of 27 February 2025, so that day does not test it.
"""

from functools import cache

from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import triangular

SGLANG = "lmsys.org, 5 May 2025: DeepSeek on 96 H100"
PREFILL_REACH = (0.33, 0.475, 0.60)
DECODE_REACH = (0.35, 0.554, 0.70)
LOAD = (0.45, 0.70, 0.90)


@cache
def prefill_reach() -> Figure:
    """Share of the roofline that an engine reaches while it reads prompts."""
    return _share("prefill_reach", PREFILL_REACH, SGLANG, "measured")


@cache
def decode_reach() -> Figure:
    """Share of the roofline that an engine reaches while it writes."""
    return _share("decode_reach", DECODE_REACH, SGLANG, "measured")


@cache
def load() -> Figure:
    """Share of the hours that a fleet is full."""
    return _share("fleet_load", LOAD, "", "assumed")


def _share(name: str, ends: tuple[float, float, float], source: str, status: Status) -> Figure:
    return Figure(
        name,
        triangular(*ends, name=name),
        "share",
        "triangular(least, mode, most)",
        (
            Input(f"{name}_least", ends[0], "share", "", "assumed"),
            Input(f"{name}_mode", ends[1], "share", source, status),
            Input(f"{name}_most", ends[2], "share", "", "assumed"),
        ),
    )
