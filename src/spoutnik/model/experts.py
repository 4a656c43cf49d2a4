"""Three ways to run routed experts, all the same function: a loop (the reference), padded batches, and torch's grouped GEMM.

Each takes hidden_TD, experts_TK (int64), weights_TK (float32), gate_up_EfD (f = 2F: gate rows, then up rows), down_EDF and returns [T, D].
Letters: T tokens, K experts per token, E experts, S slots of an expert, D hidden size, F expert width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Implementation = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def loop(hidden_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, gate_up_EfD: Tensor, down_EDF: Tensor) -> Tensor:
    """One expert after another, as the paper writes it. Slow and obvious: the others are tested against it."""
    out_TD = torch.zeros_like(hidden_TD)
    # Unbound once: indexing in the loop would make the backward pass fill a gradient of the whole tensor for every expert.
    for expert, (gate_up_fD, down_DF) in enumerate(zip(gate_up_EfD.unbind(), down_EDF.unbind(), strict=True)):
        token_n, choice_n = torch.where(experts_TK == expert)
        gate_nF, up_nF = F.linear(hidden_TD[token_n], gate_up_fD).chunk(2, dim=-1)
        expert_nD = F.linear(F.silu(gate_nF) * up_nF, down_DF)
        out_TD = out_TD.index_add(0, token_n, (expert_nD * weights_TK[token_n, choice_n, None]).to(out_TD.dtype))
    return out_TD


def padded(hidden_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, gate_up_EfD: Tensor, down_EDF: Tensor) -> Tensor:
    """Gives every expert as many slots as the busiest one needs and multiplies all at once. No token is dropped.

    The fastest for few tokens in bfloat16, and under autocast. Memory grows with the largest load, so a badly unbalanced call falls
    back to the loop.
    """
    tokens, top_k = experts_TK.shape
    num_experts = gate_up_EfD.shape[0]
    expert_n = experts_TK.flatten()
    counts_E = torch.bincount(expert_n, minlength=num_experts)
    slots = int(counts_E.max())
    if slots * num_experts > 4 * top_k * tokens + 64 * num_experts:
        return loop(hidden_TD, experts_TK, weights_TK, gate_up_EfD, down_EDF)
    order_n = expert_n.argsort(stable=True)
    place_n = torch.arange(len(order_n), device=order_n.device) - (counts_E.cumsum(0) - counts_E)[expert_n[order_n]]
    slot_n = torch.empty_like(order_n).scatter(0, order_n, expert_n[order_n] * slots + place_n)
    batch_ESD = hidden_TD.new_zeros(num_experts * slots, hidden_TD.shape[1]).index_copy(0, slot_n, hidden_TD.repeat_interleave(top_k, 0))
    gate_ESF, up_ESF = torch.bmm(batch_ESD.view(num_experts, slots, hidden_TD.shape[1]), gate_up_EfD.mT).chunk(2, dim=-1)
    out_ESD = torch.bmm(F.silu(gate_ESF) * up_ESF, down_EDF.mT).flatten(0, 1)
    return _combine(out_ESD.index_select(0, slot_n), weights_TK)


def grouped(hidden_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, gate_up_EfD: Tensor, down_EDF: Tensor) -> Tensor:
    """Tokens sorted by expert, one ragged GEMM (torch.nn.functional.grouped_mm). No padding, whatever the loads."""
    expert_n = experts_TK.flatten()
    order_n = expert_n.argsort(stable=True)
    ends_E = torch.bincount(expert_n, minlength=gate_up_EfD.shape[0]).cumsum(0).to(torch.int32)
    sorted_nD = hidden_TD.index_select(0, order_n // experts_TK.shape[1])
    gate_nF, up_nF = F.grouped_mm(sorted_nD, gate_up_EfD.mT, offs=ends_E).chunk(2, dim=-1)
    expert_nD = F.grouped_mm(F.silu(gate_nF) * up_nF, down_EDF.mT, offs=ends_E)
    return _combine(expert_nD.index_select(0, order_n.argsort()), weights_TK)


def _combine(expert_nD: Tensor, weights_TK: Tensor) -> Tensor:
    """Sums each token's K expert outputs, which stand next to each other, by their weights."""
    chosen_TKD = expert_nD.view(*weights_TK.shape, expert_nD.shape[1])
    return torch.einsum("tkd,tk->td", chosen_TKD, weights_TK.to(chosen_TKD.dtype))


IMPLEMENTATIONS: dict[str, Implementation] = {"loop": loop, "padded": padded, "grouped": grouped}


def choose(hidden_TD: Tensor, experts_TK: Tensor, gate_up_EfD: Tensor, down_EDF: Tensor) -> str:
    """The implementation that benchmarks/experts.py found fastest for such inputs, among those that can run them.

    The grouped GEMM needs rows of whole 16 bytes, is blind to autocast (it would stay in float32) and compiles in bfloat16 alone. In
    bfloat16 it gains only where an expert has enough tokens to fill a matrix.
    """
    if gate_up_EfD.dtype not in (torch.float32, torch.bfloat16) or gate_up_EfD.dtype != hidden_TD.dtype:
        return "padded"
    aligned = all(matrix.shape[-1] * matrix.element_size() % 16 == 0 for matrix in (gate_up_EfD, down_EDF))
    if not aligned or torch.is_autocast_enabled(hidden_TD.device.type):
        return "padded"
    if gate_up_EfD.dtype == torch.float32:
        return "padded" if torch.compiler.is_compiling() else "grouped"
    return "grouped" if experts_TK.numel() >= 128 * gate_up_EfD.shape[0] else "padded"
