"""A monitor of reward hacking: the reward's verdict held against an independent checker's on the same samples, with a rule when to stop.

A policy is paid for what its reward says. Where that is wrong, training finds it: the reward rises and the task is not done. So every step
asks a second judge (`tasks/recheck.py`), which the policy is not paid by, and logs

    checked         share of right answers by the second judge
    disputed        share of samples that were rewarded as right and that the judge rejects, of those that it could judge
    overlooked      share that were rewarded as wrong and that it accepts
    unearned        share of the step's reward that answers without a right result got, for instance for their format
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.recipe.reinforcement import Monitor
from spoutnik.tasks.recheck import second_verdict
from spoutnik.train.rollouts import Rollout


def verdicts(rollouts: Sequence[Rollout], graders: int = 1) -> list[bool | None]:
    """The second judge's, in order, by so many threads; None where it cannot tell."""
    with ThreadPoolExecutor(graders) as threads:
        return list(threads.map(lambda rollout: second_verdict(rollout.problem, rollout.text), rollouts))


def compare(rollouts: Sequence[Rollout], second: Sequence[bool | None], rewards_PG: Tensor) -> dict[str, float]:
    """The metrics named above. Without any verdict `checked`, `disputed` and `overlooked` are absent."""
    judged = [(bool(rollout.reward.accuracy), verdict) for rollout, verdict in zip(rollouts, second, strict=True) if verdict is not None]
    paid = rewards_PG.flatten().clamp(min=0).tolist()
    idle = sum(value for value, rollout in zip(paid, rollouts, strict=True) if not rollout.reward.accuracy)
    unearned = {"unearned": idle / (sum(paid) or 1.0)}
    if not judged:
        return unearned
    return unearned | {
        "checked": sum(verdict for _, verdict in judged) / len(judged),
        "disputed": sum(rewarded and not verdict for rewarded, verdict in judged) / len(judged),
        "overlooked": sum(verdict and not rewarded for rewarded, verdict in judged) / len(judged),
    }


def check(history: list[float], disputed: float, rule: Monitor) -> list[float]:
    """Adds a step's `disputed` to the steps that the rule looks back at. Raises UserError where their mean exceeds its limit."""
    history = [*history, disputed][-rule.steps :]
    mean = sum(history) / len(history)
    if len(history) == rule.steps and mean > rule.max_disputed:
        raise UserError(
            f"Of the last {rule.steps} steps' samples {mean:.1%} were rewarded as right, but an independent check rejects them (at most "
            f"{rule.max_disputed:.1%} may be), so the policy learns to please the reward and not to do the task; look at the disputed "
            "samples in the report and mend the reward, or raise monitor.max_disputed if it is the check that is wrong."
        )
    return history
