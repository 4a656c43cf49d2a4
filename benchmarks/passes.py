"""How far reinforcement learning moves pass@1, and how far pass@k: checkpoints of recipes/algorithms.toml on held-out problems.

    python benchmarks/passes.py runs/algorithms/seed-* --models base grpo dapo --json passes.json

pass@k is the chance that at least one of k samples is right, estimated without bias from all samples of a problem (arXiv 2107.03374,
equation 1). Intervals are over runs (Student's t); differences from the first model are taken run by run. What the JSON file already
holds is not sampled again.
"""

import argparse
import json
from collections.abc import Iterable
from math import comb
from pathlib import Path
from statistics import mean

from algorithms import interval

import spoutnik
from spoutnik.tasks import make
from spoutnik.train.rollouts import rollout_engine, sample_rollouts

TASK = {"numbers": [3], "low": 1, "high": 20, "operators": "+-", "target_max": 60}
KS = (1, 4, 16, 64)


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that k of the samples, drawn without putting back, hold a right one."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def right_answers(checkpoint: Path, temperature: float, problems: int, samples: int) -> list[int]:
    """How many of a problem's samples are right, problem by problem."""
    loaded, task = spoutnik.load(str(checkpoint), dtype="float32"), make("countdown", **TASK)
    drawn = [task.problem("held-out", 0, index) for index in range(problems)]
    engine = rollout_engine(loaded.model, loaded.tokenizer, 256)
    rollouts = sample_rollouts(engine, task, drawn, samples, temperature, 160, seed=1)
    right = [rollout.reward.accuracy > 0 for rollout in rollouts]
    return [sum(right[place * samples : (place + 1) * samples]) for place in range(problems)]


def table(found: dict[str, list[int]], runs: Iterable[str], models: list[str], temperature: float, samples: int) -> str:
    """A line a model: pass@k over runs, its difference from the first model's, and problems that only one of the two ever solved."""
    ks = [k for k in KS if k <= samples]
    lines = ["| | runs | " + " | ".join(f"pass@{k}" for k in ks) + " | " + " | ".join(f"gain @{k}" for k in ks) + " | won | lost |"]
    lines.append(f"|{' --- |' * (2 * len(ks) + 4)}")
    for model in models:
        pairs = [[found.get(key(run, name, temperature)) for name in (model, models[0])] for run in runs]
        whole = [(mine, base) for mine, base in pairs if mine is not None and base is not None]
        if not whole:
            continue
        passes = [[mean(pass_at(k, samples, right) for right in mine) for mine, _ in whole] for k in ks]
        bases = [[mean(pass_at(k, samples, right) for right in base) for _, base in whole] for k in ks]
        cells = [interval(values) for values in passes]
        cells += [
            "-" if model == models[0] else interval([a - b for a, b in zip(*pair, strict=True)]) for pair in zip(passes, bases, strict=True)
        ]
        cells += [interval([sum(a > 0 and b == 0 for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in whole])]
        cells += [interval([sum(b > 0 and a == 0 for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in whole])]
        lines.append(f"| {model} | {len(whole)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def key(run: str, model: str, temperature: float) -> str:
    return f"{Path(run).name}/{model}/{temperature}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders of one recipe with different seeds")
    parser.add_argument(
        "--models", nargs="+", default=["base", "grpo", "grpo-tokens", "dapo"], help="checkpoints; the first is compared with"
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.6])
    parser.add_argument("--problems", type=int, default=150)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path, default=Path("passes.json"))
    arguments = parser.parse_args()
    found = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for run in arguments.runs:
        for model in arguments.models:
            for temperature in arguments.temperatures:
                name, checkpoint = key(run, model, temperature), Path(run) / "checkpoints" / model
                if name not in found and (checkpoint / "config.json").exists():
                    found[name] = right_answers(checkpoint, temperature, arguments.problems, arguments.samples)
                    arguments.json.write_text(json.dumps(found))
    print(f"{arguments.problems} held-out problems, {arguments.samples} samples each; per cent with 95 % intervals over runs.")
    print("Won: problems solved at least once where the first model never did; lost: the reverse.")
    for temperature in arguments.temperatures:
        print(f"\nTemperature {temperature:g}\n")
        print(table(found, arguments.runs, arguments.models, temperature, arguments.samples))


if __name__ == "__main__":
    main()
