"""From logits to tokens, all rows at once.

A draw inverts the distribution function at a uniform number that is a hash of the request's seed and the token's position. It needs no
generator state, so it depends neither on what else is in the batch nor on the order of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoutnik.engine.request import Request
from spoutnik.errors import UserError

MASK64 = 2**64 - 1
BLOCK = 128  # tokens summed together before the distribution function is searched


@dataclass(frozen=True)
class SamplingParameters:
    """The rows' settings as tensors, made anew when the set of rows changes."""

    temperature: Tensor | None
    """[B, 1] float32, 1 for greedy rows; None if 1 everywhere"""
    greedy: Tensor
    """[B] bool"""
    all_greedy: bool
    any_greedy: bool
    truncated: Tensor
    """[R] int64, the rows that use top_k or top_p"""
    top_k: Tensor
    """[R, 1] int64, the vocabulary's size and more where off"""
    top_p: Tensor
    """[R, 1] float64"""
    seeds: NDArray[np.uint64]
    """[B]"""

    @classmethod
    def of(cls, requests: Sequence[Request], device: torch.device) -> "SamplingParameters":
        """Settings of the rows in order."""
        temperatures = [request.temperature or 1.0 for request in requests]
        greedy = [request.temperature == 0 for request in requests]
        truncated = [row for row, request in enumerate(requests) if request.temperature and (request.top_k or request.top_p < 1)]
        return cls(
            temperature=torch.tensor(temperatures, device=device)[:, None] if set(temperatures) != {1.0} else None,
            greedy=torch.tensor(greedy, device=device),
            all_greedy=all(greedy),
            any_greedy=any(greedy),
            truncated=torch.tensor(truncated, dtype=torch.int64, device=device),
            top_k=torch.tensor([requests[row].top_k or 2**62 for row in truncated], dtype=torch.int64, device=device)[:, None],
            top_p=torch.tensor([requests[row].top_p for row in truncated], dtype=torch.float64, device=device)[:, None],
            seeds=np.array([request.seed & MASK64 for request in requests], dtype=np.uint64),
        )


def sample(logits_BV: Tensor, parameters: SamplingParameters, positions_B: Sequence[int]) -> tuple[list[int], list[float]]:
    """Chooses a token for each row of float32 logits; `positions_B` is where these tokens will stand.

    Returns tokens and their log-probabilities: log-softmax of logits / temperature (of the logits where temperature is 0), before top_k
    and top_p, which is what a policy gradient at that temperature needs. Logits that are NaN or +inf raise UserError.
    """
    scaled_BV = logits_BV if parameters.temperature is None else logits_BV / parameters.temperature
    peak_B1 = scaled_BV.amax(-1, keepdim=True)
    mass_BnK = _masses(scaled_BV, peak_B1)
    if parameters.all_greedy:
        total_B = mass_BnK.sum((-2, -1))
        token_B = scaled_BV.argmax(-1)
    else:
        uniform_B = torch.from_numpy(uniforms(parameters.seeds, positions_B)).to(logits_BV.device)
        token_B, total_B = _draw(mass_BnK, uniform_B)
        if len(parameters.truncated):
            rows_R = parameters.truncated
            mass_RV = mass_BnK[rows_R].flatten(1)[:, : logits_BV.shape[1]]
            token_B[rows_R] = _draw_truncated(mass_RV, total_B[rows_R, None], parameters, uniform_B[rows_R])
        if parameters.any_greedy:
            token_B = torch.where(parameters.greedy, scaled_BV.argmax(-1), token_B)
    if not bool(total_B.isfinite().all()):
        raise UserError("The model's logits are not finite, so no token can be drawn; check its weights for NaN or infinity.")
    logprob_B = scaled_BV.gather(-1, token_B[:, None]).squeeze(-1) - peak_B1.squeeze(-1) - total_B.log()
    return token_B.tolist(), logprob_B.tolist()


def uniforms(seeds_B: NDArray[np.uint64], positions_B: Sequence[int]) -> NDArray[np.float64]:
    """A number in [0, 1), multiple of 2^-40, for each (seed, position): SplitMix64 (Steele, Lea, Flood 2014) of both."""
    steps_B = np.asarray(positions_B, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (_mix(_mix(seeds_B) + steps_B) >> np.uint64(24)).astype(np.float64) * 2.0**-40


def derive_seed(seed: int, index: int) -> int:
    """The seed of the index-th of several requests made under one seed."""
    state = _mix(np.array([seed & MASK64], dtype=np.uint64)) + np.array([index & MASK64], dtype=np.uint64)
    return int(_mix(state)[0])


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _masses(scaled_BV: Tensor, peak_B1: Tensor) -> Tensor:
    """exp(logits - peak), cut into blocks [B, n, BLOCK]; the vocabulary is padded with mass 0."""
    rows, vocab_size = scaled_BV.shape
    blocks = -(-vocab_size // BLOCK)
    mass_BV = scaled_BV.new_empty(rows, blocks * BLOCK)
    mass_BV[:, vocab_size:] = 0
    torch.sub(scaled_BV, peak_B1, out=mass_BV[:, :vocab_size]).exp_()
    return mass_BV.view(rows, blocks, BLOCK)


def _draw(mass_BnK: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse distribution function in two steps, block then token. Returns tokens and the rows' total mass (float64)."""
    cumulative_Bn = mass_BnK.sum(-1, dtype=torch.float64).cumsum(-1)
    block_B1, share_B1 = _invert(cumulative_Bn, uniform_B[:, None])
    rows_B = torch.arange(len(mass_BnK), device=mass_BnK.device)
    within_B1, _ = _invert(mass_BnK[rows_B, block_B1.squeeze(-1)].cumsum(-1, dtype=torch.float64), share_B1)
    return (block_B1 * BLOCK + within_B1).squeeze(-1), cumulative_Bn[:, -1]


def _invert(cumulative_BN: Tensor, uniform_B1: Tensor) -> tuple[Tensor, Tensor]:
    """The first item whose cumulative mass exceeds uniform * total, and how far into that item the point lies, in [0, 1).

    An item without mass is never chosen: the point stays below the total, and the search is for strictly more.
    """
    point_B1 = uniform_B1 * cumulative_BN[:, -1:]
    item_B1 = torch.searchsorted(cumulative_BN, point_B1, right=True).clamp_(max=cumulative_BN.shape[1] - 1)  # past the end only if NaN
    end_B1 = cumulative_BN.gather(-1, item_B1)
    start_B1 = torch.where(item_B1 > 0, cumulative_BN.gather(-1, (item_B1 - 1).clamp_(min=0)), 0)
    return item_B1, ((point_B1 - start_B1) / (end_B1 - start_B1)).clamp_(0, 1 - 2**-40)


def _draw_truncated(mass_RV: Tensor, total_R1: Tensor, parameters: SamplingParameters, uniform_R: Tensor) -> Tensor:
    """Draws among the allowed tokens."""
    token_RN, top_RN, inside_RN = allowed(mass_RV, total_R1, parameters.top_k, parameters.top_p)
    item_R1, _ = _invert(torch.where(inside_RN, top_RN, 0).cumsum(-1, dtype=torch.float64), uniform_R[:, None])
    return token_RN.gather(-1, item_R1).squeeze(-1)


def allowed(mass_RV: Tensor, total_R1: Tensor, top_k_R1: Tensor, top_p_R1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the top_k likeliest tokens the fewest that hold top_p of their mass: (candidates [R, N], their mass, whether each is allowed).

    Looks at the 256 likeliest tokens first and at more only if a row needs them: a full sort of a large vocabulary is dear.
    """
    vocab_size = mass_RV.shape[1]
    size = min(256, vocab_size)
    while True:
        top_RN, token_RN = mass_RV.topk(size, dim=-1)
        cumulative_RN = top_RN.cumsum(-1, dtype=torch.float64)
        enough_R1 = (top_k_R1 <= size) | (cumulative_RN[:, -1:] >= top_p_R1 * total_R1)
        if size == vocab_size or bool(enough_R1.all()):
            break
        size = min(8 * size, vocab_size)
    rank_N = torch.arange(size, device=mass_RV.device)
    inside_RN = rank_N < top_k_R1
    held_R1 = torch.where(inside_RN, top_RN, 0).sum(-1, keepdim=True, dtype=torch.float64)
    held_R1 = torch.where(top_k_R1 <= size, held_R1, total_R1)
    inside_RN &= cumulative_RN - top_RN < top_p_R1 * held_R1
    return token_RN, top_RN, inside_RN
