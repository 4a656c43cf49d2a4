"""Fits what `spoutnik plan recipe` predicts with: runs three recipes of short stages, compares, and writes src/spoutnik/plan/laptop.toml.

    python benchmarks/laptop.py --out runs/laptop [--times 2] [--dry]

Each stage gives an equation: the sum of factor x term (see plan/laptop.py), with the lengths and signals that the stage had, is the time
that it took without its pauses. The factors minimise the squared relative errors, none negative, each drawn a little to its prior where
the stages do not say. Of several runs the fastest of each stage counts, as of the probe's tries. Nothing may run beside; two to four minutes
each. What is there in --out is not run again.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spoutnik.plan import laptop, probe
from spoutnik.plan.taken import Taken, taken
from spoutnik.plan.uncertain import middle
from spoutnik.plan.work import StageWork
from spoutnik.recipe import Recipe, load_recipe
from spoutnik.rehearsal.stages import Rehearsal
from spoutnik.rehearsal.work import Workload
from spoutnik.run.machine import GIB
from spoutnik.run.record import read

HERE = Path(__file__).parent
RECIPES = ("laptop_small", "laptop_real", "laptop_answers")
TARGET = HERE.parent / "src" / "spoutnik" / "plan" / "laptop.toml"
PRIORS, WEIGHT = {"update products bfloat16": 1.5, "decode weights": 1.5, "growth": 20.0, "stage": 10.0}, 0.02
"""What a factor is drawn to where it is not 1: WEIGHT x (factor / prior - 1) is one more relative error."""
LEAST = {"update products float32": 1.0, "update products bfloat16": 1.0}
"""The same library multiplies, so that nothing of it is faster than the probe."""
Array = NDArray[np.float64]
PACE = (0.85, 1.0, 1.2)
"""Assumed: the same steps of the same model took 0.111 s in one quiet run and 0.130 s in another."""
ANSWER, SIGNAL = (0.2, 0.45, 0.8), (0.2, 0.7, 1.0)
"""Assumed: least, likeliest and most. Of the longest answer, untrained models wrote a fifth and trained ones half."""


@dataclass(frozen=True)
class Stage:
    """What a stage had to do, and what it took."""

    work: StageWork
    took: Taken

    def was(self, here: probe.Probe) -> tuple[StageWork, probe.Probe, laptop.Shares]:
        """What `terms` takes, with the lengths and shares that the stage had."""
        work, shares = laptop.as_it_was(self.work, self.took)
        return work, here, shares


def run(name: str, out: Path) -> None:
    """Carries one of the two recipes, as a user would."""
    command = [sys.executable, "-m", "spoutnik", "launch", str(HERE / f"{name}.toml"), "--out", str(out), "--json"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def stages_of(recipe: Recipe, folder: Path) -> list[Stage]:
    """Each finished stage of a run."""
    workload, found = Workload(recipe), taken(read(folder / "record.jsonl"))
    held = {stage.name: stage.memory for stage in Rehearsal(recipe, {}, accelerated=False).stages()}
    return [
        Stage(replace(workload.of(stage), memory=held[stage.name]), found[stage.name]) for stage in recipe.stages if stage.name in found
    ]


def equations(stages: list[Stage], here: probe.Probe) -> tuple[Array, Array, list[str]]:
    """(a row for each equation, what it adds up to, the terms' names); errors are relative to the whole stage's time.

    A stage of several steps gives two equations: one for its steps, and one for its beginning, with what the first step warms up, and end.
    Preference optimisation reads its data once at the beginning, so its times are not apart.
    """
    rows: list[dict[str, float]] = []
    targets, weights = [], []
    for stage in stages:
        found = {name: middle(value) for name, value in laptop.terms(*stage.was(here)).items()}
        whole, stepping = stage.took.undisturbed, stage.took.stepping if stage.work.kind != "dpo" else None
        setup = {name: value for name, value in found.items() if name in laptop.SETUP}
        parts = {name: value for name, value in found.items() if name not in laptop.SETUP}
        for terms, target in ((found, whole),) if stepping is None else ((parts, stepping), (setup, whole - stepping)):
            rows.append(terms)
            targets.append(target)
            weights.append(1.0 / whole)
    names = list(dict.fromkeys(name for row in rows for name in row))
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    return matrix * np.array(weights)[:, None], np.array(targets) * np.array(weights), names


def fit(stages: list[Stage], here: probe.Probe) -> dict[str, float]:
    """Non-negative factors by coordinate descent."""
    matrix, wanted, names = equations(stages, here)
    priors = np.array([PRIORS.get(name, 1.0) for name in names])
    matrix = np.concatenate((matrix, WEIGHT * np.diag(1.0 / priors)))
    wanted = np.concatenate((wanted, np.full(len(names), WEIGHT)))
    least = np.array([LEAST.get(name, 0.0) for name in names])
    factors = np.maximum(priors, least)
    for _ in range(20_000):
        for place in range(len(names)):
            column = matrix[:, place]
            rest = wanted - matrix @ factors + column * factors[place]
            factors[place] = max(least[place], float(column @ rest) / float(column @ column))
    return dict(zip(names, factors.tolist(), strict=True))


def memory(stages: list[Stage]) -> tuple[float, float]:
    """(bytes of a process, how often its tensors' bytes come to them): least squares of relative errors, where lengths were known."""
    kinds = ("pretrain", "sft", "dpo", "distill")
    pairs = [
        (stage.work.memory, stage.took.memory) for stage in stages if stage.work.kind in kinds and stage.work.memory and stage.took.memory
    ]
    matrix = np.array([[1.0 / held, tensors / held] for tensors, held in pairs])
    base, factor = np.linalg.lstsq(matrix, np.ones(len(pairs)), rcond=None)[0]
    return float(base), float(factor)


def show(stages: list[Stage], factors: dict[str, float], here: probe.Probe) -> None:
    """How well the factors fit, on stdout."""
    for stage in stages:
        work, took = stage.work, stage.took
        terms = laptop.terms(*stage.was(here))
        fitted = sum(factors.get(name, 0.0) * middle(value) for name, value in terms.items())
        times = f"took {took.undisturbed:7.2f} s, fitted {fitted:7.2f} s ({fitted / took.undisturbed - 1:+4.0%}), busy {took.busy:.2f}"
        print(f"{work.name:14} {work.kind:9} {times}, held {took.memory / GIB:5.2f} GiB, tensors {(work.memory or 0) / GIB:5.2f} GiB")
    for name, factor in factors.items():
        print(f"{name:26} {factor:.3f}")


def write(factors: dict[str, float], held: tuple[float, float], here: probe.Probe, stages: int) -> None:
    """laptop.toml."""
    terms = "\n".join(f'"{name}" = {factor:.4g}' for name, factor in factors.items())
    spreads = "\n".join(f"{name} = {list(value)}" for name, value in (("pace", PACE), ("answer", ANSWER), ("signal", SIGNAL)))
    TARGET.write_text(
        f"""# Made by benchmarks/laptop.py, which says how; see plan/laptop.py for what the terms are.
date = "{time.strftime("%Y-%m-%d", time.gmtime())}"
made = "from {stages} stages on {here.identity}, probed {here.date}"
{spreads}
base_memory = {held[0]:.3g}
tensors = {held[1]:.3g}

[terms]
{terms}
""",
        encoding="utf-8",
    )


def main() -> None:
    """Runs, fits, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print the fit, write nothing")
    arguments = parser.parse_args()
    here = probe.probed()
    stages: list[Stage] = []
    for name in RECIPES:
        recipe, runs = load_recipe(HERE / f"{name}.toml"), []
        for number in range(1, arguments.times + 1):
            run(name, arguments.out / str(number) / name)
            runs.append(stages_of(recipe, arguments.out / str(number) / name))
        stages += [min(tries, key=lambda stage: stage.took.undisturbed) for tries in zip(*runs, strict=True)]
    factors = fit(stages, here)
    show(stages, factors, here)
    if not arguments.dry:
        write(factors, memory(stages), here, len(stages))


if __name__ == "__main__":
    main()
