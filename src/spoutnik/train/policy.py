"""Policy updates: from graded rollouts to a gradient. A mini-batch is one optimiser step, a micro-batch as much as is computed at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.generator import Engine
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.run.context import StageContext
from spoutnik.train.algorithms.dapo import dapo
from spoutnik.train.algorithms.dr_grpo import dr_grpo
from spoutnik.train.algorithms.grpo import grpo
from spoutnik.train.algorithms.gspo import gspo, sequence_log_ratio
from spoutnik.train.algorithms.streams import Clip, Streams, objective
from spoutnik.train.algorithms.v32 import unbiased_kl, v32, without_off_policy
from spoutnik.train.as_sampled import Kept, Support, log_mass, rerouted, support_of
from spoutnik.train.examples import collate
from spoutnik.train.losses import k3_kl
from spoutnik.train.rollouts import Rollout
from spoutnik.train.scoring import (
    answer_logits,
    answer_logprobs,
    answer_places,
    computed_in,
    engine_logprobs,
    placed,
    spread,
    with_values,
)
from spoutnik.train.state import TrainState
from spoutnik.train.update import apply_update

METRICS = ("loss", "kl", "clip_fraction", "off_policy", "rerouted")
"""Of a mini-batch, beside the gradient's norm."""


@dataclass(frozen=True)
class Engines:
    """Of the policy, and of the reference where the kernels score it. Both live as long as the stage and follow the weights in place."""

    policy: Engine
    reference: Engine | None


def credit(stage: RLStage, rewards_PG: Tensor, mask_BT: Tensor, answers: int) -> Streams:
    """The streams of the stage's algorithm for the groups that teach something, of a mini-batch of `answers` answers."""
    match stage.algorithm:
        case "grpo":
            return grpo(rewards_PG, mask_BT, stage.kl_coef, answers, stage.average)
        case "dr_grpo":
            return dr_grpo(rewards_PG, mask_BT, stage.kl_coef, answers, stage.max_new_tokens)
        case "dapo":
            return dapo(rewards_PG, mask_BT, stage.kl_coef)
        case "gspo":
            return gspo(rewards_PG, mask_BT, stage.kl_coef, answers)
        case "v32":
            return v32(rewards_PG, mask_BT, stage.kl_coef, answers)


@dataclass(frozen=True)
class MiniBatch:
    """Whole groups, and how they are computed: rows of like length together."""

    rollouts: list[Rollout]
    rewards: Tensor
    """[P, G]"""
    ids: Tensor
    mask: Tensor
    """[B, T] each"""
    parts: list[tuple[list[int], int]]
    """Micro-batches: rows, and their longest's length."""

    def fields(self, part: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A micro-batch's rows of tensors [B, T], cut to its length."""
        rows, longest = self.parts[part]
        return {name: tensor[rows, :longest] for name, tensor in tensors.items()}


def mini_batch(rollouts: list[Rollout], rewards_PG: Tensor, cells: int, device: torch.device | None = None) -> MiniBatch:
    """A mini-batch of these groups, prompt by prompt, on `device` (the CPU), of which about `cells` tokens are computed at once."""
    texts, starts = [[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts]
    ids_BT, mask_BT = collate(texts, starts, device=device)
    lengths = [len(r.prompt_ids) + len(r.token_ids) for r in rollouts]
    parts = [(rows, max(lengths[row] for row in rows)) for rows in _micro_batches(lengths, cells)]
    return MiniBatch(rollouts, rewards_PG.to(device), ids_BT, mask_BT, parts)


def remember(model: CausalLM, stage: RLStage, batch: MiniBatch, routes: bool) -> list[Kept]:
    """What is kept of each micro-batch, found by the policy that sampled it; see `as_sampled.py`."""
    kept = []
    for part in range(len(batch.parts)):
        fixed = batch.fields(part, {"ids": batch.ids, "mask": batch.mask})
        routing = Routing() if routes else None
        support = None
        with torch.no_grad():
            scaled_NV = _scaled_logits(model, stage, fixed, routing)
            if stage.truncates:
                support = support_of(scaled_NV, fixed["ids"][answer_places(fixed["mask"])], stage.top_p, stage.top_k)
        kept.append(Kept(routing, support))
    return kept


def update_policy(
    state: TrainState, stage: RLStage, context: StageContext, engines: Engines, batch: MiniBatch, scale: float, moved: bool,
    kept: Sequence[Kept] | None = None,
) -> tuple[dict[str, float], float]:  # fmt: skip
    """One optimiser step; `moved` says that the policy is not any more what it was when it sampled, `kept` is what to keep of that.

    Returns metrics, and the mean distance of the modules' log-probabilities before the step to the sampler's.
    """
    rollouts, mask_BT = batch.rollouts, batch.mask
    fixed = {"ids": batch.ids, "mask": mask_BT, "sampler": spread([r.logprobs for r in rollouts], mask_BT)}
    replays = kept is not None and kept[0].routing is not None
    if engines.policy.exact and not (moved and replays):  # the kernels cannot be told where to send a token
        fixed["policy"] = engine_logprobs(engines.policy, rollouts, mask_BT, stage.temperature) if moved else fixed["sampler"]
    if engines.reference is not None:
        fixed["reference"] = engine_logprobs(engines.reference, rollouts, mask_BT, stage.temperature)
        engines.reference.reset()  # none of these texts comes again
    streams = credit(stage, batch.rewards, mask_BT, stage.prompts // stage.minibatches * stage.group)
    tokens = float(mask_BT.sum())
    sums = dict.fromkeys([*METRICS, "forward_gap"], 0.0)
    for part, (rows, longest) in enumerate(batch.parts):
        keeping = kept[part] if kept is not None else Kept(None, None)
        found = _micro_loss(state, stage, streams.rows(rows, longest), batch.fields(part, fixed), tokens, keeping)
        sums = {name: sums[name] + value for name, value in found.items()}
    forward_gap = sums.pop("forward_gap")
    norm = apply_update(state, sums["loss"], scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": batch.ids, "mask": mask_BT})
    return {**sums, "grad_norm": norm}, forward_gap


def _micro_loss(
    state: TrainState, stage: RLStage, streams: Streams, fixed: dict[str, Tensor], tokens: float, kept: Kept
) -> dict[str, float]:
    """Adds the gradient of some rows; `tokens` is the count of the whole mini-batch. Returns this part's share of the metrics.

    `fixed`, [B, T] each: ids, mask, the sampler's log-probabilities, and the policy's and the reference's where kernels computed them.
    """
    mask_BT, sampler_BT = fixed["mask"], fixed["sampler"]
    routing = None if kept.routing is None else Routing(kept.routing)
    scaled_NV = _scaled_logits(state.model, stage, fixed, routing)
    derived_BT = answer_logprobs(scaled_NV, fixed["ids"], mask_BT)
    logprobs_BT = with_values(derived_BT, fixed["policy"]) if "policy" in fixed else derived_BT
    if kept.support is not None:
        logprobs_BT = logprobs_BT - placed(log_mass(scaled_NV, kept.support.tokens), mask_BT)
        sampler_BT = sampler_BT - placed(kept.support.log_mass, mask_BT)
    token_BT = logprobs_BT - sampler_BT
    divergence_BT = None
    if state.reference is not None:
        reference_BT = _reference_logprobs(state.reference, stage, fixed, kept.support)
        unbiased = stage.kl_estimate == "unbiased"
        divergence_BT = unbiased_kl(logprobs_BT, reference_BT, token_BT) if unbiased else k3_kl(logprobs_BT, reference_BT)
    used = streams if stage.off_policy_delta is None else without_off_policy(streams, token_BT, mask_BT, stage.off_policy_delta)
    log_ratio_BT = sequence_log_ratio(token_BT, mask_BT) if stage.algorithm == "gspo" else token_BT
    loss = objective(used, logprobs_BT, log_ratio_BT, Clip(stage.clip, stage.clip_high), divergence_BT)
    loss.backward()
    with torch.no_grad():
        ratio_BT = log_ratio_BT.exp()
        clipped_BT = (ratio_BT < 1 - stage.clip) | (ratio_BT > 1 + stage.clip_high)
        left_out_BT = (streams.advantages != 0) & (used.advantages == 0)
        changed = rerouted(state.model, routing, answer_places(mask_BT)[:, 1:].flatten()) if routing is not None else 0.0
        return {
            "loss": loss.item(),
            "kl": float((divergence_BT * mask_BT).sum()) / tokens if divergence_BT is not None else 0.0,
            "clip_fraction": float((clipped_BT * mask_BT).sum()) / tokens,
            "off_policy": float(left_out_BT.sum()) / tokens,
            "rerouted": changed * float(mask_BT.sum()) / tokens,
            "forward_gap": float(((derived_BT - fixed["sampler"]) * mask_BT).abs().sum()) / tokens,
        }


def _reference_logprobs(reference: CausalLM, stage: RLStage, fixed: dict[str, Tensor], support: Support | None) -> Tensor:
    """What the reference says of the answers [B, T]: the kernels' where they said it, over the sampler's support where that is kept."""
    if "reference" in fixed and support is None:
        return fixed["reference"]
    with torch.no_grad():
        scaled_NV = _scaled_logits(reference, stage, fixed)
        logprobs_BT = fixed["reference"] if "reference" in fixed else answer_logprobs(scaled_NV, fixed["ids"], fixed["mask"])
        return logprobs_BT if support is None else logprobs_BT - placed(log_mass(scaled_NV, support.tokens), fixed["mask"])


def _scaled_logits(model: CausalLM, stage: RLStage, fixed: dict[str, Tensor], routing: Routing | None = None) -> Tensor:
    """The modules' logits [N, V] of the answers' tokens, float32, divided by the rollouts' temperature."""
    with computed_in(stage.dtype, fixed["ids"]):
        logits_NV = answer_logits(model, fixed["ids"], fixed["mask"], routing)
    return logits_NV.float() if stage.temperature == 1.0 else logits_NV.float() / stage.temperature


def _micro_batches(lengths: Sequence[int], cells: int) -> list[list[int]]:
    """Rows of like length together, each batch at most `cells` tokens with its padding (one row at least)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= cells:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
