"""How far reinforcement learning moves pass@1, and how far pass@k: checkpoints of recipes/algorithms.toml on held-out problems.

    python benchmarks/passes.py runs/algorithms/seed-* --models base grpo dapo --json passes.json

pass@k is the chance that at least one of k samples is right, estimated without bias from all samples of a problem (arXiv 2107.03374,
equation 1). Intervals are over runs (Student's t), or over problems where there is one run; differences from the first model are taken
problem by problem. What the JSON file already holds is not sampled again.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from statistics import mean, stdev

from algorithms import interval

import spoutnik
from spoutnik.tasks import make
from spoutnik.train.rollouts import rollout_engine, sample_rollouts

TASK = {"low": 1, "high": 20, "operators": "+-", "target_max": 60}
KS = (1, 4, 16, 64)


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that k of the samples, drawn without putting back, hold a right one."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def right_answers(checkpoint: Path, numbers: int, temperature: float, problems: int, samples: int) -> list[int]:
    """How many of a problem's samples are right, problem by problem."""
    loaded, task = spoutnik.load(str(checkpoint), dtype="float32"), make("countdown", numbers=[numbers], **TASK)
    drawn = [task.problem("held-out", 0, index) for index in range(problems)]
    engine = rollout_engine(loaded.model, loaded.tokenizer, 256)
    rollouts = sample_rollouts(engine, task, drawn, samples, temperature, 160, seed=1)
    right = [rollout.reward.accuracy > 0 for rollout in rollouts]
    return [sum(right[place * samples : (place + 1) * samples]) for place in range(problems)]


def table(found: dict[str, list[int]], runs: Sequence[str], models: Sequence[str], setting: str, samples: int) -> str:
    """A line a model: pass@k, its difference from the first model's, and problems that only one of the two ever solved."""
    ks = [k for k in KS if k <= samples]
    lines = [f"| | runs | {' | '.join([*(f'pass@{k}' for k in ks), *(f'gain @{k}' for k in ks)])} | won | lost |"]
    lines.append(f"|{' --- |' * (2 * len(ks) + 4)}")
    for model in models:
        pairs = [(found.get(key(run, model, setting)), found.get(key(run, models[0], setting))) for run in runs]
        rights = [list(zip(mine, first, strict=True)) for mine, first in pairs if mine is not None and first is not None]
        if not rights:
            continue

        def cell(figure: Callable[[int, int], float], rights: list[list[tuple[int, int]]] = rights) -> str:
            return over_runs([[figure(mine, first) for mine, first in run] for run in rights])

        cells = [cell(lambda mine, _, k=k: pass_at(k, samples, mine)) for k in ks]
        cells += [cell(lambda mine, first, k=k: pass_at(k, samples, mine) - pass_at(k, samples, first)) for k in ks]
        cells += [cell(lambda mine, first: mine > 0 and first == 0), cell(lambda mine, first: mine == 0 and first > 0)]
        lines.append(f"| {model} | {len(rights)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def over_runs(values: list[list[float]]) -> str:
    """The mean in per cent, with an interval over runs, or over problems where there is one run."""
    if len(values) > 1:
        return interval([mean(run) for run in values])
    return f"{100 * mean(values[0]):.1f} ± {196 * stdev(values[0]) / len(values[0]) ** 0.5:.1f}"


def key(run: str, model: str, setting: str) -> str:
    return f"{Path(run).name}/{model}/{setting}"


def setting(arguments: argparse.Namespace, temperature: float) -> str:
    return f"{arguments.numbers} numbers, temperature {temperature:g}, {arguments.problems} problems, {arguments.samples} samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders of one recipe with different seeds")
    parser.add_argument(
        "--models", nargs="+", default=["base", "grpo", "grpo-tokens", "dapo"], help="checkpoints; the first is compared with"
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.6])
    parser.add_argument("--numbers", type=int, default=3, help="numbers of a problem; the models learnt on three")
    parser.add_argument("--problems", type=int, default=150)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path, default=Path("passes.json"))
    arguments = parser.parse_args()
    found = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for run in arguments.runs:
        for model in arguments.models:
            for temperature in arguments.temperatures:
                name, checkpoint = key(run, model, setting(arguments, temperature)), Path(run) / "checkpoints" / model
                if name not in found and (checkpoint / "config.json").exists():
                    found[name] = right_answers(checkpoint, arguments.numbers, temperature, arguments.problems, arguments.samples)
                    arguments.json.write_text(json.dumps(found))
    print("Held-out problems; per cent with 95 % intervals over runs (over problems where there is one run).")
    print("Won: problems solved at least once where the first model never did; lost: the reverse.")
    for temperature in arguments.temperatures:
        print(f"\n{setting(arguments, temperature)}\n")
        print(table(found, arguments.runs, arguments.models, setting(arguments, temperature), arguments.samples))


if __name__ == "__main__":
    main()
