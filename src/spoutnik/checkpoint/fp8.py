"""DeepSeek's FP8 checkpoints: e4m3 weights with one scale per block of 128 x 128.

Source: DeepSeek-V3 report, section 3.3, and the repository's README_WEIGHTS. Despite its name, `weight_scale_inv` is multiplied.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spoutnik.errors import UserError

SCALE = "_scale_inv"
"""Appended to a weight's name, this is the name of its scales."""


def block_size(quantization_config: Mapping[str, Any]) -> tuple[int, int]:
    """(rows, columns) that share a scale, from `quantization_config` in config.json. Raises UserError for any other quantisation."""
    method, form = quantization_config.get("quant_method"), quantization_config.get("fmt", "e4m3")
    block = quantization_config.get("weight_block_size")
    match block:
        case [int(rows), int(columns)] if method == "fp8" and form == "e4m3" and rows > 0 and columns > 0:
            return rows, columns
        case _:
            raise UserError(
                f"The checkpoint is quantised with {method!r} ({form}, blocks {block}); Spoutnik reads 'fp8' in e4m3 with a "
                "weight_block_size such as [128, 128]: choose that or an unquantised checkpoint."
            )


def dequantise(name: str, weight_OI: Tensor, scale_oi: Tensor | None, block: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """weight * scale in `dtype`, shape [out, in], computed in float32.

    `scale_oi` has shape [ceil(out / block), ceil(in / block)]: a partial block at an edge (576 rows are 4.5 blocks) has a scale of its own.
    Raises UserError if the scale is missing, for the bare bytes would be a weight thousands of times too large.
    """
    if scale_oi is None:
        raise UserError(f"{name} is FP8 but the checkpoint lacks its scale {name}{SCALE}; download the checkpoint again")
    rows, columns = weight_OI.shape
    expected = (-(-rows // block[0]), -(-columns // block[1]))
    if tuple(scale_oi.shape) != expected:
        raise UserError(
            f"{name}{SCALE} has shape {list(scale_oi.shape)}, but blocks of {list(block)} in {[rows, columns]} need {list(expected)}"
        )
    scale_OI = scale_oi.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return (weight_OI.float() * scale_OI).to(dtype)
