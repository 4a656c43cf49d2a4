"""Reinforcement learning with verifiable rewards: sample groups, grade, give credit, update. One step is a pure function of the state."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.errors import UserError
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.recipe.tables import Dtype
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.algorithms.groups import has_signal
from spoutnik.train.collect import Collected, Draw, collect
from spoutnik.train.curriculum import PassRates
from spoutnik.train.monitor import check, compare, verdicts
from spoutnik.train.optim import Optimizer
from spoutnik.train.policy import METRICS, Engines, mini_batch, remember, update_policy
from spoutnik.train.rollouts import Rollout, rollout_engine, rollout_metrics
from spoutnik.train.schedule import wsd
from spoutnik.train.scoring import rescored
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed

SAMPLES_SHOWN = 4
WARMUP = 0.05
MISMATCH_LIMIT: dict[Dtype, float] = {"float32": 0.01, "bfloat16": 0.1}
"""Nats a token. Float32 rounding is below 1e-5, but rounding may now and then send a token to another expert."""


def run_rl(stage: RLStage, context: StageContext) -> None:
    """Trains the model `from` on a task by the stage's algorithm and writes it as a Hugging Face directory."""
    task = make(stage.task.name, **stage.task.options)
    model, tokenizer = open_model(context.resolve(stage.from_), device=computing_device())
    reference = frozen_copy(model) if stage.kl_coef else None
    engines = make_engines(model, reference, tokenizer, stage.prompts * stage.group, stage.dtype)

    def start() -> TrainState:
        pool = PassRates.unknown(stage.curriculum.problems) if stage.curriculum else None
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay), reference=reference, pass_rates=pool)

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

    found = collect(engines.policy, task, stage, _drawing(state, stage, task, context.seed), stream_seed(context.seed, step))
    everything = [*found.rollouts, *found.extra]
    if state.pass_rates is not None:
        _note(state.pass_rates, everything, stage.group)
    second = verdicts(found.first, getattr(task, "graders", 1))
    checked_metrics = compare(found.first, second, found.first_rewards)
    rollout_s = time.perf_counter() - began
    checked = found.rollouts[step % stage.group :: stage.group]
    mismatch = rescored(engines.policy, checked, stage.temperature) if engines.policy.exact else None
    informative = has_signal(found.rewards).nonzero().flatten().tolist()
    scale = wsd(step, stage.steps, WARMUP, 0.0)
    sums, forward_gap = _updates(state, stage, context, engines, found, informative, scale)
    mismatch = forward_gap if mismatch is None else mismatch
    # Also where only the modules' derivative is used: of a wrong value it is wrong, too.
    check_mismatch(max(mismatch, forward_gap), stage.dtype)
    state.step += 1
    scored = 1 / stage.group + 1 - 1 / stage.minibatches if engines.policy.exact else 0.0
    _account(context, state, stage, found, informative, scored)
    _show(context, step, stage, found.rollouts)
    _show_disputed(context, step, found.first, second)
    state.disputed = check(state.disputed, checked_metrics.get("disputed", 0.0), stage.monitor)
    tokens = sum(len(rollout.token_ids) for rollout in everything)
    pool = state.pass_rates.metrics() if state.pass_rates is not None else {}
    return {
        "reward": float(found.first_rewards.mean()), **rollout_metrics(found.first),
        "no_signal": 1 - float(has_signal(found.first_rewards).float().mean()), "groups": len(everything) // stage.group,
        "informative": len(informative), **checked_metrics, **pool, **sums, "mismatch": mismatch, "forward_gap": forward_gap,
        "learning_rate": stage.learning_rate * scale, "rollout_s": rollout_s, "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip


def _drawing(state: TrainState, stage: RLStage, task: Task, seed: int) -> Draw:
    """How a step gets its problems: fresh ones, or those of the curriculum's pool that promise most, never twice in a step."""
    used: list[int] = []

    def draw(number: int, count: int) -> list[Problem]:
        start = (state.step * stage.sampling_rounds + number) * stage.prompts
        indices = list(range(start, start + count))
        if state.pass_rates is not None:
            indices = state.pass_rates.draw(count, stream_seed(seed, state.step, "pool", number), without=used)
            used.extend(indices)
        return [task.problem(stage.task.split, seed, index) for index in indices]

    return draw


def _note(rates: PassRates, rollouts: Sequence[Rollout], group: int) -> None:
    """Tells a curriculum how its problems went; samples without a verdict say nothing."""
    for first in range(0, len(rollouts), group):
        judged = [rollout.reward.accuracy for rollout in rollouts[first : first + group] if not rollout.reward.faulted]
        rates.note(rollouts[first].problem.index, round(sum(judged)), len(judged))


def _updates(
    state: TrainState, stage: RLStage, context: StageContext, engines: Engines, found: Collected, informative: Sequence[int], scale: float
) -> tuple[dict[str, float], float]:
    """An optimiser step for each mini-batch that holds a group with signal. Returns the means of their metrics, and `forward_gap`."""
    size = stage.prompts // stage.minibatches
    parts = [[index for index in informative if first <= index < first + size] for first in range(0, stage.prompts, size)]
    batches = [
        mini_batch(found.groups(groups, stage.group), found.rewards[groups], stage.micro_batch_tokens, state.device)
        for groups in parts
        if groups
    ]
    routes = replays_routing(stage, state.model)
    kept = [remember(state.model, stage, batch, routes) for batch in batches] if stage.truncates or routes else None
    sums, forward_gap = dict.fromkeys([*METRICS, "grad_norm"], 0.0), 0.0
    for place, batch in enumerate(batches):
        if place:
            engines.policy.refresh()  # moved by the mini-batch before
        keeping = kept[place] if kept is not None else None
        metrics, gap = update_policy(state, stage, context, engines, batch, scale, place > 0, keeping)
        sums = {name: sums[name] + value / stage.minibatches for name, value in metrics.items()}
        forward_gap = forward_gap if place else gap
    return sums, forward_gap


def replays_routing(stage: RLStage, model: CausalLM) -> bool:
    """Whether there are routers to be told anything, and updates before which their choices are the sampler's by themselves."""
    layers = range(model.config.num_hidden_layers)
    return stage.keep_routing and stage.minibatches > 1 and any(map(model.config.layer_has_experts, layers))


def check_mismatch(mismatch: float, dtype: Dtype = "float32") -> None:
    """Raises UserError if the trainer's log-probabilities of the sampled tokens are not the sampler's, on the very same weights."""
    limit = MISMATCH_LIMIT[dtype]
    if mismatch > limit:
        raise UserError(
            f"Sampler and trainer disagree on the log-probability of a sampled token by {mismatch:.2g} nats on average (at most "
            f"{limit} is rounding), so the policy gradient would be wrong; this is a fault of Spoutnik: please report the recipe."
        )


def _account(context: StageContext, state: TrainState, stage: RLStage, found: Collected, informative: Sequence[int], scored: float) -> None:
    """Tokens sampled, and FLOPs of sampling, of training on informative groups, of scores, and of `remember`.

    `scored` is the share of the tokens that the policy's engine scored.
    """
    config = state.model.config
    rollouts = [*found.rollouts, *found.extra]
    cells = sum(map(_length, rollouts))
    trained = sum(map(_length, found.groups(informative, stage.group)))
    mean = cells // len(rollouts)
    reread = stage.truncates or replays_routing(stage, state.model)
    scoring = ((state.reference is not None) + scored + reread) * forward_flops(config, trained, mean)
    context.ledger.add(
        sum(len(rollout.token_ids) for rollout in rollouts),
        forward_flops(config, cells, mean) + training_flops(config, trained, mean) + scoring,
    )


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.token_ids)


def _show(context: StageContext, step: int, stage: RLStage, rollouts: Sequence[Rollout]) -> None:
    """Keeps some of the first and the last step's thinking for the report."""
    if step in (0, stage.steps - 1):
        for rollout in rollouts[:: stage.group][:SAMPLES_SHOWN]:
            context.log(
                "sample", step=step + 1, when="early" if step == 0 else "late", prompt=rollout.problem.prompt, text=rollout.text,
                correct=bool(rollout.reward.accuracy),
            )  # fmt: skip


def _show_disputed(context: StageContext, step: int, rollouts: Sequence[Rollout], second: Sequence[bool | None]) -> None:
    """Keeps the first sample that was rewarded as right and that the second judge rejects."""
    for rollout, verdict in zip(rollouts, second, strict=True):
        if rollout.reward.accuracy and verdict is False:
            prompt = rollout.problem.prompt
            context.log("sample", step=step + 1, when="disputed", prompt=prompt, text=rollout.text, correct=False)
            return
