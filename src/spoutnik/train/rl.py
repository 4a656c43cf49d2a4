"""Reinforcement learning with verifiable rewards: sample groups, grade, give credit, update. One step is a pure function of the state."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import Dtype, RLStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.algorithms import Streams, grpo, has_signal, objective
from spoutnik.train.examples import collate
from spoutnik.train.losses import k3_kl
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import Rollout, rollout_engine, rollout_metrics, sample_rollouts
from spoutnik.train.schedule import wsd
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in, engine_logprobs, rescored, spread, with_values
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed
from spoutnik.train.update import apply_update

MICRO_BATCH_CELLS = 8192
SAMPLES_SHOWN = 4
WARMUP = 0.05
MISMATCH_LIMIT: dict[Dtype, float] = {"float32": 0.01, "bfloat16": 0.1}
"""Nats a token. Float32 rounding is below 1e-5, but rounding may now and then send a token to another expert."""


@dataclass(frozen=True)
class Engines:
    """Of the policy, and of the reference where the kernels score it. Both live as long as the stage and follow the weights in place."""

    policy: Engine
    reference: Engine | None


def run_rl(stage: RLStage, context: StageContext) -> None:
    """Trains the model `from` by GRPO on a task and writes it as a Hugging Face directory."""
    task = make(stage.task.name, **stage.task.options)
    model, tokenizer = open_model(context.resolve(stage.from_))
    reference = frozen_copy(model) if stage.kl_coef else None
    engines = make_engines(model, reference, tokenizer, stage.prompts * stage.group, stage.dtype)

    def start() -> TrainState:
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay), reference=reference)

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    state = run_stage(context, stage.steps, start, lambda state: rl_step(state, stage, task, engines, context), save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def frozen_copy(model: CausalLM) -> CausalLM:
    """A copy that takes no gradient."""
    return copy.deepcopy(model).requires_grad_(False)


def make_engines(model: CausalLM, reference: CausalLM | None, tokenizer: Tokenizer, answers: int, dtype: Dtype = "float32") -> Engines:
    """Engines for steps of so many answers. Where the policy's are not exact the modules say what the reference thinks, too."""
    policy = rollout_engine(model, tokenizer, answers, dtype)
    return Engines(policy, rollout_engine(reference, tokenizer, answers, dtype) if reference is not None and policy.exact else None)


def rl_step(state: TrainState, stage: RLStage, task: Task, engines: Engines, context: StageContext) -> dict[str, object]:
    """Rollouts for `prompts` fresh problems, then one optimiser step for each of `minibatches`; returns the metrics of the record."""
    began, step = time.perf_counter(), state.step
    if state.reference is not None and step and step % stage.reference_every == 0:
        state.reference.load_state_dict(state.model.state_dict())
    for engine in (engines.policy, engines.reference):
        if engine is not None:
            engine.refresh()
    problems = [task.problem(stage.task.split, context.seed, step * stage.prompts + place) for place in range(stage.prompts)]
    rollouts = sample_rollouts(
        engines.policy, task, problems, stage.group, stage.temperature, stage.max_new_tokens, stream_seed(context.seed, step)
    )
    rollout_s = time.perf_counter() - began
    mismatch = rescored(engines.policy, rollouts[step % stage.group :: stage.group], stage.temperature) if engines.policy.exact else None
    rewards_PG = rewards(rollouts, stage)
    informative = has_signal(rewards_PG).nonzero().flatten().tolist()
    sums, forward_gap = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "grad_norm": 0.0}, None
    size, scale = stage.prompts // stage.minibatches, wsd(step, stage.steps, WARMUP, 0.0)
    for first in range(0, stage.prompts, size):
        groups = [index for index in informative if first <= index < first + size]
        if groups:
            chosen = [rollout for g in groups for rollout in rollouts[g * stage.group : (g + 1) * stage.group]]
            moved = forward_gap is not None  # by the mini-batch before
            if moved:
                engines.policy.refresh()
            metrics, gap = _minibatch(state, stage, context, engines, chosen, rewards_PG[groups], scale, moved)
            sums = {name: sums[name] + value / stage.minibatches for name, value in metrics.items()}
            forward_gap = forward_gap if moved else gap
    forward_gap = forward_gap or 0.0
    mismatch = forward_gap if mismatch is None else mismatch
    # Also where only the modules' derivative is used: of a wrong value it is wrong, too.
    check_mismatch(max(mismatch, forward_gap), stage.dtype)
    state.step += 1
    scored = 1 / stage.group + 1 - 1 / stage.minibatches if engines.policy.exact else 0.0
    _account(context, state, stage, rollouts, informative, scored)
    _show(context, step, stage, rollouts)
    seconds = time.perf_counter() - began
    return {
        "reward": float(rewards_PG.mean()), **rollout_metrics(rollouts), "no_signal": 1 - len(informative) / stage.prompts, **sums,
        "mismatch": mismatch, "forward_gap": forward_gap, "learning_rate": stage.learning_rate * scale, "rollout_s": rollout_s,
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


def check_mismatch(mismatch: float, dtype: Dtype = "float32") -> None:
    """Raises UserError if the trainer's log-probabilities of the sampled tokens are not the sampler's, on the very same weights."""
    limit = MISMATCH_LIMIT[dtype]
    if mismatch > limit:
        raise UserError(
            f"Sampler and trainer disagree on the log-probability of a sampled token by {mismatch:.2g} nats on average (at most "
            f"{limit} is rounding), so the policy gradient would be wrong; this is a fault of Spoutnik: please report the recipe."
        )


def _minibatch(
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
    streams, tokens = grpo(rewards_PG, mask_BT, stage.kl_coef), float(mask_BT.sum())
    sums = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "forward_gap": 0.0}
    for rows in _micro_batches([len(r.prompt_ids) + len(r.token_ids) for r in rollouts]):
        longest = max(len(rollouts[row].prompt_ids) + len(rollouts[row].token_ids) for row in rows)
        part = _micro_loss(state, stage, _rows(streams, rows, longest), {k: v[rows, :longest] for k, v in fixed.items()}, tokens)
        sums = {name: sums[name] + value for name, value in part.items()}
    forward_gap = sums.pop("forward_gap")
    norm = apply_update(state, sums["loss"], scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    return {**sums, "grad_norm": norm}, forward_gap


def _micro_loss(state: TrainState, stage: RLStage, streams: Streams, fixed: dict[str, Tensor], tokens: float) -> dict[str, float]:
    """Adds the gradient of some rows; `tokens` is the count of the whole mini-batch. Returns this part's share of the metrics.

    `fixed`, [B, T] each: ids, mask, the sampler's log-probabilities, and the policy's and the reference's where kernels computed them.
    """
    ids_BT, mask_BT, sampler_BT = fixed["ids"], fixed["mask"], fixed["sampler"]
    with computed_in(stage.dtype, ids_BT):
        logits_NV = answer_logits(state.model, ids_BT, mask_BT)
    derived_BT = logprobs_BT = answer_logprobs(logits_NV.float(), ids_BT, mask_BT, stage.temperature)
    if "policy" in fixed:
        logprobs_BT = with_values(derived_BT, fixed["policy"])
    divergence_BT = None
    if state.reference is not None:
        reference_BT = fixed.get("reference")
        if reference_BT is None:
            with torch.no_grad(), computed_in(stage.dtype, ids_BT):
                reference_BT = answer_logprobs(answer_logits(state.reference, ids_BT, mask_BT).float(), ids_BT, mask_BT, stage.temperature)
        divergence_BT = k3_kl(logprobs_BT, reference_BT)
    loss = objective(streams, logprobs_BT, sampler_BT, divergence_BT, stage.clip, tokens)
    loss.backward()
    with torch.no_grad():
        clipped = ((logprobs_BT - sampler_BT).exp() - 1).abs() > stage.clip
        return {
            "loss": loss.item(),
            "kl": float((divergence_BT * mask_BT).sum()) / tokens if divergence_BT is not None else 0.0,
            "clip_fraction": float((clipped * mask_BT).sum()) / tokens,
            "forward_gap": float(((derived_BT - sampler_BT) * mask_BT).abs().sum()) / tokens,
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


def _account(
    context: StageContext, state: TrainState, stage: RLStage, rollouts: Sequence[Rollout], informative: Sequence[int], scored: float
) -> None:
    """Tokens sampled, and FLOPs of sampling, of training on informative groups, and of the reference's and the policy's scores.

    `scored` is the share of the tokens that the policy's engine scored.
    """
    config = state.model.config
    lengths = [len(rollout.prompt_ids) + len(rollout.token_ids) for rollout in rollouts]
    trained = sum(sum(lengths[g * stage.group : (g + 1) * stage.group]) for g in informative)
    mean = sum(lengths) // len(lengths)
    scoring = ((state.reference is not None) + scored) * forward_flops(config, trained, mean)
    context.ledger.add(
        sum(len(r.token_ids) for r in rollouts),
        forward_flops(config, sum(lengths), mean) + training_flops(config, trained, mean) + scoring,
    )


def _show(context: StageContext, step: int, stage: RLStage, rollouts: Sequence[Rollout]) -> None:
    """Keeps some of the first and the last step's thinking for the report."""
    if step in (0, stage.steps - 1):
        for rollout in rollouts[:: stage.group][:SAMPLES_SHOWN]:
            context.log(
                "sample", step=step + 1, when="early" if step == 0 else "late", prompt=rollout.problem.prompt, text=rollout.text,
                correct=bool(rollout.reward.accuracy),
            )  # fmt: skip
