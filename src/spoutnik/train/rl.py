"""Reinforcement learning with verifiable rewards: sample groups, grade, give credit, update. One step is a pure function of the state."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import RLStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.algorithms import Streams, grpo, has_signal, objective
from spoutnik.train.examples import collate
from spoutnik.train.losses import k3_kl
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import Rollout, rollout_metrics, sample_rollouts
from spoutnik.train.schedule import wsd
from spoutnik.train.scoring import answer_logits, answer_logprobs
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed
from spoutnik.train.update import apply_update

MICRO_BATCH_CELLS = 8192
SAMPLES_SHOWN = 4
WARMUP = 0.05
MISMATCH_LIMIT = 0.01
"""Nats a token. Float32 rounding is below 1e-5, but rounding may now and then send a token to another expert."""


def run_rl(stage: RLStage, context: StageContext) -> None:
    """Trains the model `from` by GRPO on a task and writes it as a Hugging Face directory."""
    task = make(stage.task.name, **stage.task.options)
    model, tokenizer = open_model(context.resolve(stage.from_))

    def start() -> TrainState:
        reference = frozen_copy(model) if stage.kl_coef else None
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay), reference=reference)

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    state = run_stage(context, stage.steps, start, lambda state: rl_step(state, stage, task, tokenizer, context), save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def frozen_copy(model: CausalLM) -> CausalLM:
    """A copy that takes no gradient."""
    return copy.deepcopy(model).requires_grad_(False)


def rl_step(state: TrainState, stage: RLStage, task: Task, tokenizer: Tokenizer, context: StageContext) -> dict[str, object]:
    """Rollouts for `prompts` fresh problems, then one optimiser step for each of `minibatches`; returns the metrics of the record."""
    began, step = time.perf_counter(), state.step
    if state.reference is not None and step and step % stage.reference_every == 0:
        state.reference = frozen_copy(state.model)
    problems = [task.problem(stage.task.split, context.seed, step * stage.prompts + place) for place in range(stage.prompts)]
    rollouts = sample_rollouts(
        state.model, tokenizer, task, problems, stage.group, stage.temperature, stage.max_new_tokens, stream_seed(context.seed, step)
    )
    rollout_s = time.perf_counter() - began
    rewards_PG = rewards(rollouts, stage)
    informative = has_signal(rewards_PG).nonzero().flatten().tolist()
    sums, mismatch = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "grad_norm": 0.0}, None
    size, scale = stage.prompts // stage.minibatches, wsd(step, stage.steps, WARMUP, 0.0)
    for first in range(0, stage.prompts, size):
        groups = [index for index in informative if first <= index < first + size]
        if groups:
            chosen = [rollout for g in groups for rollout in rollouts[g * stage.group : (g + 1) * stage.group]]
            metrics, gap = _minibatch(state, stage, context, chosen, rewards_PG[groups], scale)
            sums = {name: sums[name] + value / stage.minibatches for name, value in metrics.items()}
            mismatch = gap if mismatch is None else mismatch  # later mini-batches differ from the sampler because the policy has moved
    if mismatch is not None:
        check_mismatch(mismatch)
    state.step += 1
    _account(context, state, stage, rollouts, informative)
    _show(context, step, stage, rollouts)
    seconds = time.perf_counter() - began
    return {
        "reward": float(rewards_PG.mean()), **rollout_metrics(rollouts), "no_signal": 1 - len(informative) / stage.prompts, **sums,
        "mismatch": mismatch or 0.0, "learning_rate": stage.learning_rate * scale, "rollout_s": rollout_s,
        "tokens_per_s": sum(len(rollout.token_ids) for rollout in rollouts) / seconds,
    }  # fmt: skip


def rewards(rollouts: Sequence[Rollout], stage: RLStage) -> Tensor:
    """[P, G] accuracy + format_weight * format + language_weight * language (R1, section 2.2.2).

    A sample whose verifier failed to answer gets its group's mean, that is no credit and no blame.
    """
    values = [
        rollout.reward.accuracy + stage.format_weight * rollout.reward.format + stage.language_weight * rollout.reward.language
        for rollout in rollouts
    ]
    value_PG = torch.tensor(values).view(-1, stage.group)
    judged_PG = torch.tensor([not rollout.reward.faulted for rollout in rollouts]).view(-1, stage.group)
    mean_P1 = (value_PG * judged_PG).sum(-1, keepdim=True) / judged_PG.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(judged_PG, value_PG, mean_P1)


def check_mismatch(mismatch: float) -> None:
    """Raises UserError if the trainer's log-probabilities of the sampled tokens are not the sampler's, on the very same weights."""
    if mismatch > MISMATCH_LIMIT:
        raise UserError(
            f"Sampler and trainer disagree on the log-probability of a sampled token by {mismatch:.2g} nats on average (at most "
            f"{MISMATCH_LIMIT} is rounding), so the policy gradient would be wrong; this is a fault of Spoutnik: please report the recipe."
        )


def _minibatch(
    state: TrainState, stage: RLStage, context: StageContext, rollouts: Sequence[Rollout], rewards_PG: Tensor, scale: float
) -> tuple[dict[str, float], float]:
    """One optimiser step on whole groups; returns metrics, and the mean distance to the sampler's log-probabilities before the step."""
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    sampler_BT = torch.zeros_like(mask_BT).masked_scatter(mask_BT > 0, torch.tensor([x for r in rollouts for x in r.logprobs]))
    streams, tokens = grpo(rewards_PG, mask_BT, stage.kl_coef), float(mask_BT.sum())
    sums = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "mismatch": 0.0}
    for rows in _micro_batches([len(r.prompt_ids) + len(r.token_ids) for r in rollouts]):
        longest = max(len(rollouts[row].prompt_ids) + len(rollouts[row].token_ids) for row in rows)
        part = _micro_loss(
            state, stage, _rows(streams, rows, longest), ids_BT[rows, :longest], mask_BT[rows, :longest], sampler_BT[rows, :longest], tokens
        )
        sums = {name: sums[name] + value for name, value in part.items()}
    mismatch = sums.pop("mismatch")
    norm = apply_update(state, sums["loss"], scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    return {**sums, "grad_norm": norm}, mismatch


def _micro_loss(
    state: TrainState, stage: RLStage, streams: Streams, ids_BT: Tensor, mask_BT: Tensor, sampler_BT: Tensor, tokens: float
) -> dict[str, float]:
    """Adds the gradient of some rows; `tokens` is the count of the whole mini-batch. Returns this part's share of the metrics."""
    logprobs_BT = answer_logprobs(answer_logits(state.model, ids_BT, mask_BT), ids_BT, mask_BT, stage.temperature)
    divergence_BT = None
    if state.reference is not None:
        with torch.no_grad():
            reference_BT = answer_logprobs(answer_logits(state.reference, ids_BT, mask_BT), ids_BT, mask_BT, stage.temperature)
        divergence_BT = k3_kl(logprobs_BT, reference_BT)
    loss = objective(streams, logprobs_BT, sampler_BT, divergence_BT, stage.clip, tokens)
    loss.backward()
    with torch.no_grad():
        gap_BT = (logprobs_BT - sampler_BT) * mask_BT
        clipped = (gap_BT.exp() - 1).abs() > stage.clip
        return {
            "loss": loss.item(),
            "kl": float((divergence_BT * mask_BT).sum()) / tokens if divergence_BT is not None else 0.0,
            "clip_fraction": float((clipped * mask_BT).sum()) / tokens,
            "mismatch": float(gap_BT.abs().sum()) / tokens,
        }


def _rows(streams: Streams, rows: list[int], longest: int) -> Streams:
    return Streams(*(stream[rows, :longest] for stream in (streams.advantages, streams.ce, streams.kl)))


def _micro_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of like length together, each batch at most MICRO_BATCH_CELLS tokens with its padding (one row at least)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= MICRO_BATCH_CELLS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _account(context: StageContext, state: TrainState, stage: RLStage, rollouts: Sequence[Rollout], informative: Sequence[int]) -> None:
    """Tokens sampled, and FLOPs of sampling, training on informative groups, and the reference's forward."""
    config = state.model.config
    lengths = [len(rollout.prompt_ids) + len(rollout.token_ids) for rollout in rollouts]
    trained = sum(sum(lengths[g * stage.group : (g + 1) * stage.group]) for g in informative)
    mean = sum(lengths) // len(lengths)
    reference = forward_flops(config, trained, mean) if state.reference is not None else 0.0
    context.ledger.add(
        sum(len(r.token_ids) for r in rollouts),
        forward_flops(config, sum(lengths), mean) + training_flops(config, trained, mean) + reference,
    )


def _show(context: StageContext, step: int, stage: RLStage, rollouts: Sequence[Rollout]) -> None:
    """Keeps some of the first and the last step's thinking for the report."""
    if step in (0, stage.steps - 1):
        for rollout in rollouts[:: stage.group][:SAMPLES_SHOWN]:
            context.log(
                "sample", step=step + 1, when="early" if step == 0 else "late", prompt=rollout.problem.prompt, text=rollout.text,
                correct=bool(rollout.reward.accuracy),
            )  # fmt: skip
