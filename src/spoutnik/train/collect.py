"""A step's rollouts and their rewards, group by group; groups that say nothing are drawn anew as often as the recipe allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.generator import Engine
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.tasks.base import Problem, Task
from spoutnik.train.algorithms.dapo import overlong_penalty
from spoutnik.train.algorithms.groups import has_signal
from spoutnik.train.rollouts import Rollout, sample_rollouts
from spoutnik.train.state import stream_seed

Draw = Callable[[int, int], list[Problem]]
"""(round, count) -> so many problems that no other round of the step has."""


@dataclass(frozen=True)
class Collected:
    """`rollouts` are those to train on, prompt by prompt; `first` those of the first round, which nothing has selected."""

    rollouts: list[Rollout]
    rewards: Tensor
    """[P, G] of `rollouts`."""
    first: list[Rollout]
    first_rewards: Tensor
    """[P, G] of `first`."""
    extra: list[Rollout]
    """What was drawn and is not trained on: groups that were replaced."""

    def groups(self, indices: Sequence[int], group: int) -> list[Rollout]:
        """The rollouts of some groups."""
        return [rollout for index in indices for rollout in self.rollouts[index * group : (index + 1) * group]]


def collect(engine: Engine, task: Task, stage: RLStage, draw: Draw, seed: int) -> Collected:
    """Samples a group for each of `stage.prompts` problems, and again for those whose rewards agree, at most `sampling_rounds` times."""
    places = list(range(stage.prompts))
    groups: list[list[Rollout]] = [[] for _ in places]
    rewards_PG = torch.zeros(stage.prompts, stage.group)
    first: list[Rollout] = []
    extra: list[Rollout] = []
    for number in range(stage.sampling_rounds):
        problems = draw(number, len(places))
        round_seed = stream_seed(seed, number) if number else seed
        rollouts = sample_rollouts(
            engine, task, problems, stage.group, stage.temperature, stage.max_new_tokens, round_seed, stage.top_p, stage.top_k
        )
        first = first or rollouts
        for index, place in enumerate(places):
            extra += groups[place]
            groups[place] = rollouts[index * stage.group : (index + 1) * stage.group]
        rewards_PG[places] = rewards(rollouts, stage)
        places = (~has_signal(rewards_PG)).nonzero().flatten().tolist()
        if not places:
            break
    return Collected([rollout for group in groups for rollout in group], rewards_PG, first, rewards(first, stage), extra)


def rewards(rollouts: Sequence[Rollout], stage: RLStage) -> Tensor:
    """[P, G] accuracy + format_weight * format + language_weight * language (R1, section 2.2.2), less DAPO's punishment of long answers.

    A sample whose verifier failed to answer gets its group's mean, that is no credit and no blame.
    """
    value_PG = torch.tensor([_value(rollout, stage) for rollout in rollouts]).view(-1, stage.group)
    if stage.overlong_cache:
        lengths_PG = torch.tensor([len(rollout.token_ids) for rollout in rollouts]).view(-1, stage.group)
        value_PG = value_PG + overlong_penalty(lengths_PG, stage.max_new_tokens, stage.overlong_cache)
    judged_PG = torch.tensor([not rollout.reward.faulted for rollout in rollouts]).view(-1, stage.group)
    mean_P1 = (value_PG * judged_PG).sum(-1, keepdim=True) / judged_PG.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(judged_PG, value_PG, mean_P1)


def _value(rollout: Rollout, stage: RLStage) -> float:
    reward = rollout.reward
    return reward.accuracy + stage.format_weight * reward.format + stage.language_weight * reward.language
