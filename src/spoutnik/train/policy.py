"""Policy updates: from graded rollouts to a gradient. A mini-batch is one optimiser step, a micro-batch as much as is computed at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.generator import Engine
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.run.context import StageContext
from spoutnik.train.algorithms.dapo import dapo
from spoutnik.train.algorithms.dr_grpo import dr_grpo
from spoutnik.train.algorithms.grpo import grpo
from spoutnik.train.algorithms.gspo import gspo, sequence_log_ratio
from spoutnik.train.algorithms.streams import Clip, Streams, objective
from spoutnik.train.algorithms.v32 import unbiased_kl, v32, without_off_policy
from spoutnik.train.examples import collate
from spoutnik.train.losses import k3_kl
from spoutnik.train.rollouts import Rollout
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in, engine_logprobs, spread, with_values
from spoutnik.train.state import TrainState
from spoutnik.train.update import apply_update

MICRO_BATCH_CELLS = 8192


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


def update_policy(
    state: TrainState, stage: RLStage, context: StageContext, engines: Engines, rollouts: Sequence[Rollout], rewards_PG: Tensor,
    scale: float, moved: bool,
) -> tuple[dict[str, float], float]:  # fmt: skip
    """One optimiser step on whole groups; `moved` says that the policy is not any more what it was when it sampled.

    Returns metrics, and the mean distance of the modules' log-probabilities before the step to the sampler's.
    """
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    fixed = {"ids": ids_BT, "mask": mask_BT, "sampler": spread([r.logprobs for r in rollouts], mask_BT)}
    if engines.policy.exact:
        fixed["policy"] = engine_logprobs(engines.policy, rollouts, mask_BT, stage.temperature) if moved else fixed["sampler"]
    if engines.reference is not None:
        fixed["reference"] = engine_logprobs(engines.reference, rollouts, mask_BT, stage.temperature)
        engines.reference.reset()  # none of these texts comes again
    streams, tokens = credit(stage, rewards_PG, mask_BT, stage.prompts // stage.minibatches * stage.group), float(mask_BT.sum())
    sums = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "off_policy": 0.0, "forward_gap": 0.0}
    for rows in _micro_batches([len(r.prompt_ids) + len(r.token_ids) for r in rollouts]):
        longest = max(len(rollouts[row].prompt_ids) + len(rollouts[row].token_ids) for row in rows)
        part = _micro_loss(state, stage, streams.rows(rows, longest), {k: v[rows, :longest] for k, v in fixed.items()}, tokens)
        sums = {name: sums[name] + value for name, value in part.items()}
    forward_gap = sums.pop("forward_gap")
    norm = apply_update(state, sums["loss"], scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    return {**sums, "grad_norm": norm}, forward_gap


def _micro_loss(state: TrainState, stage: RLStage, streams: Streams, fixed: dict[str, Tensor], tokens: float) -> dict[str, float]:
    """Adds the gradient of some rows; `tokens` is the count of the whole mini-batch. Returns this part's share of the metrics.

    `fixed`, [B, T] each: ids, mask, the sampler's log-probabilities, and the policy's and the reference's where kernels computed them.
    """
    ids_BT, mask_BT, sampler_BT = fixed["ids"], fixed["mask"], fixed["sampler"]
    derived_BT = logprobs_BT = _logprobs(state.model, stage, ids_BT, mask_BT)
    if "policy" in fixed:
        logprobs_BT = with_values(derived_BT, fixed["policy"])
    token_BT = logprobs_BT - sampler_BT
    divergence_BT = None
    if state.reference is not None:
        reference_BT = fixed.get("reference")
        if reference_BT is None:
            with torch.no_grad():
                reference_BT = _logprobs(state.reference, stage, ids_BT, mask_BT)
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
        return {
            "loss": loss.item(),
            "kl": float((divergence_BT * mask_BT).sum()) / tokens if divergence_BT is not None else 0.0,
            "clip_fraction": float((clipped_BT * mask_BT).sum()) / tokens,
            "off_policy": float(left_out_BT.sum()) / tokens,
            "forward_gap": float(((derived_BT - sampler_BT) * mask_BT).abs().sum()) / tokens,
        }


def _logprobs(model: CausalLM, stage: RLStage, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """What the modules say of the answers, at the rollouts' temperature, zero elsewhere. [B, T]"""
    with computed_in(stage.dtype, ids_BT):
        logits_NV = answer_logits(model, ids_BT, mask_BT)
    return answer_logprobs(logits_NV.float(), ids_BT, mask_BT, stage.temperature)


def _micro_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of like length together, each batch at most MICRO_BATCH_CELLS tokens with its padding (one row at least)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= MICRO_BATCH_CELLS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
