"""Answers sampled in training until a model scores what reinforcement learning reached: by that reward, or from that teacher (a table).

    python benchmarks/on_policy.py --seeds 1 2 3 --out runs/on-policy     # everything; goes on where it was stopped

The stages are recipes/on-policy.toml's. A seed decides the corpus, the base, the problems and the draws. All models answer the same
problems, once each, so differences to the teacher are paired by problem. What the teacher's own training took is not counted as the
student's: the table compares ways to reach its score from the same base, once by a reward and once with the teacher at hand.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from algorithms import interval

from spoutnik.checkpoint.load import open_model
from spoutnik.engine.generator import Engine
from spoutnik.evaluate.evaluate import MAX_BATCH
from spoutnik.evaluate.posed import pose
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import AnyStage, DistillStage, RLStage, TaskSpec, load_recipe
from spoutnik.tasks import make
from spoutnik.train.rollouts import sample_rollouts
from spoutnik.train.state import stream_seed

TEMPERATURE = 0.6


def sampled(stage: AnyStage | None) -> int:
    """Answers that a stage samples to train on."""
    if isinstance(stage, RLStage):
        return stage.steps * stage.prompts * stage.group
    return stage.steps * (stage.prompts or 0) if isinstance(stage, DistillStage) else 0


def outcomes(folder: Path, model: str, spec: TaskSpec, longest: int) -> list[bool]:
    """Whether each problem was solved; asked once, then read from the run's folder."""
    file = folder / f"outcomes-{model}-{spec.split}-{spec.problems}.json"
    if not file.exists():
        engine = Engine(*open_model(folder / "checkpoints" / model), max_batch=MAX_BATCH)
        task = make(spec.name, **spec.options)
        rollouts = sample_rollouts(engine, task, pose(spec).problems, 1, TEMPERATURE, longest, stream_seed(0, "on-policy"))
        file.write_text(json.dumps([rollout.reward.accuracy > 0 for rollout in rollouts]), encoding="utf-8")
    found: list[bool] = json.loads(file.read_text(encoding="utf-8"))
    return found


def difference(model: list[bool], teacher: list[bool]) -> tuple[float, float]:
    """Mean of the paired differences in percentage points, and half the width of its 95 % interval."""
    apart = [100.0 * (ours - theirs) for ours, theirs in zip(model, teacher, strict=True)]
    return mean(apart), 1.96 * stdev(apart) / len(apart) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/on-policy"))
    parser.add_argument("--recipe", default="on-policy")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--split", choices=["held-out", "train"], default="held-out", help="train: where settings are chosen")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    learnt = [stage for stage in recipe.stages if isinstance(stage, RLStage | DistillStage)]
    teacher = next(stage.teacher for stage in recipe.stages if isinstance(stage, DistillStage))
    task = learnt[0].task
    spec = TaskSpec(name=task.name, split=arguments.split, problems=arguments.problems, **task.options)
    models = {"base": 0, **{stage.name: sampled(stage) for stage in learnt}}
    solved: dict[str, list[list[bool]]] = {model: [] for model in models}
    for seed in arguments.seeds:
        folder = arguments.out / f"seed-{seed}"
        run_recipe(recipe.model_copy(update={"seed": seed}), folder, arguments.recipe)
        for model in models:
            solved[model].append(outcomes(folder, model, spec, learnt[0].max_new_tokens))
    seeds = ", ".join(map(str, arguments.seeds))
    print(f"Seeds {seeds}; {arguments.problems} {arguments.split} problems, one answer each at temperature {TEMPERATURE}.")
    print("Accuracy with its 95 % interval over seeds; differences to the teacher with theirs over problems, seed by seed.\n")
    print("| | answers sampled | the teacher's over these | accuracy, % | less the teacher's, points |")
    print("| --- | --- | --- | --- | --- |")
    for model, count in models.items():
        ratio = f"{models[teacher] / count:.1f}" if count else "-"
        apart = [difference(ours, theirs) for ours, theirs in zip(solved[model], solved[teacher], strict=True)]
        said = "-" if model == teacher else ", ".join(f"{middle:+.1f} ± {half:.1f}" for middle, half in apart)
        print(f"| {model} | {count:,} | {ratio} | {interval([mean(one) for one in solved[model]])} | {said} |")


if __name__ == "__main__":
    main()
