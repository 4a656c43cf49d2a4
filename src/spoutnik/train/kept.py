"""What rejection sampling keeps, whoever gave the answers, and the file that it goes into."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from spoutnik.errors import UserError
from spoutnik.recipe.schema import SampleStage
from spoutnik.tasks.base import Problem
from spoutnik.tasks.reward import Reward
from spoutnik.teacher.base import Provenance
from spoutnik.teacher.card import KEY


class Sample(Protocol):
    """A graded answer: a policy's `Rollout`, or a teacher's."""

    @property
    def problem(self) -> Problem: ...
    @property
    def text(self) -> str: ...
    @property
    def length(self) -> int:
        """In tokens of whoever wrote it."""
        ...

    @property
    def reward(self) -> Reward: ...
    @property
    def steps(self) -> int: ...
    @property
    def right_steps(self) -> int: ...
    @property
    def supported(self) -> bool: ...


def kept(rollouts: Sequence[Sample], stage: SampleStage, teachers: Sequence[Provenance] = ()) -> list[dict[str, object]]:
    """What a problem's samples leave: all, or the first or shortest that is right, well-formed and (if asked) faithful; or a pair."""
    if stage.keep == "all":
        return [row(rollout, teachers) for rollout in rollouts]
    if stage.keeps_pairs:
        return pair(rollouts, stage.keep == "pairs", teachers)
    good = [rollout for rollout in rollouts if rollout.reward.accuracy and rollout.reward.format]
    if stage.keep == "correct-and-faithful":
        good = [rollout for rollout in good if is_faithful(rollout)]
    good = sorted(good, key=lambda rollout: rollout.length) if stage.prefer == "shortest" else good
    return [row(rollout, teachers) for rollout in good[:1]]


def pair(rollouts: Sequence[Sample], right_and_wrong: bool, teachers: Sequence[Provenance] = ()) -> list[dict[str, object]]:
    """The answer that earned most against the one that earned least, the first of equals; none where the verifier said nothing of a sample.

    With `right_and_wrong` there is a pair only where one is right and the other wrong; else any two different texts make one.
    """
    judged = [rollout for rollout in rollouts if not rollout.reward.faulted]
    if not judged:
        return []
    best, worst = max(judged, key=_earned), min(reversed(judged), key=_earned)
    if best.text == worst.text or (right_and_wrong and best.reward.accuracy == worst.reward.accuracy):
        return []
    problem = best.problem
    return [
        {"prompt": problem.prompt, "chosen": best.text, "rejected": worst.text, "task": problem.task, "seed": problem.seed,
         "index": problem.index, **({KEY: list(teachers)} if teachers else {})}
    ]  # fmt: skip


def _earned(rollout: Sample) -> tuple[float, float, float]:
    return rollout.reward.accuracy, rollout.reward.format, rollout.reward.language


def is_faithful(rollout: Sample) -> bool:
    """Every written sum is right, one of them reaches the value of the answer, and no line stands twice.

    Who tries the same thing again has not read what the first try gave; R1's filter dropped unreadable thinking for the like reason.
    """
    lines = [line for line in rollout.text.splitlines() if line.strip()]
    return 0 < rollout.steps == rollout.right_steps and rollout.supported and len(set(lines)) == len(lines)


def row(rollout: Sample, teachers: Sequence[Provenance] = ()) -> dict[str, object]:
    """A line of samples.jsonl."""
    problem = rollout.problem
    return {
        "prompt": problem.prompt, "completion": rollout.text, "task": problem.task, "seed": problem.seed, "index": problem.index,
        "correct": bool(rollout.reward.accuracy), "steps": rollout.steps, "right_steps": rollout.right_steps,
        **({KEY: list(teachers)} if teachers else {}),
    }  # fmt: skip


def nothing_kept(stage: SampleStage, remedy: str) -> UserError:
    """The error of a stage that kept nothing."""
    return UserError(
        f"Stage {stage.name!r} kept none of {stage.problems * stage.samples_per_problem} samples; "
        f"{stage.from_!r} cannot do the task yet: {remedy}, sample more, or loosen `keep`."
    )


def write_rows(rows: Sequence[dict[str, object]], path: Path) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
