"""Fits what `spoutnik plan recipe` predicts with: runs two recipes of short stages, compares, and writes src/spoutnik/plan/laptop.toml.

    python benchmarks/laptop.py --out runs/laptop [--also RECIPE=RUN ...] [--dry]

Each stage gives one equation: the sum of factor x term (see plan/laptop.py), with the lengths and signals that the stage had, is the time
that it took without its pauses. The factors minimise the squared relative errors, none negative, each drawn a little towards PRIOR where
the stages do not say. `--also` adds finished runs. Nothing may run beside; two minutes each.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from spoutnik.plan import laptop, probe
from spoutnik.plan.taken import Taken, taken
from spoutnik.plan.work import StageWork
from spoutnik.recipe import Recipe, load_recipe
from spoutnik.rehearsal.stages import Rehearsal
from spoutnik.rehearsal.work import Workload
from spoutnik.run.record import read

HERE = Path(__file__).parent
RECIPES = ("laptop_small", "laptop_real")
TARGET = HERE.parent / "src" / "spoutnik" / "plan" / "laptop.toml"
PRIOR, WEIGHT = 1.0, 0.02
"""What a factor is drawn to: WEIGHT x (factor - PRIOR) is one more relative error."""
PACE = (0.85, 1.0, 1.2)
"""Assumed: the same steps of the same model took 0.111 s in one quiet run and 0.130 s in another."""
ANSWER, SIGNAL = (0.2, 0.45, 0.8), (0.4, 0.9, 1.0)
"""Assumed: least, likeliest and most. Of the longest answer, untrained models wrote a fifth and trained ones half."""
TERMS = (
    "stage", "open", "write", "corpus", "traces", "update calls", "update expert calls", "update products float32",
    "update products bfloat16", "update activations", "update weights", "muon", "decode calls", "decode weights",
    "decode products float32", "decode products bfloat16", "answers", "packing",
)  # fmt: skip
FIXED = {"open": 1.0, "write": 1.0}


def run(name: str, out: Path) -> None:
    """Carries one of the two recipes, as a user would."""
    command = [sys.executable, "-m", "spoutnik", "launch", str(HERE / f"{name}.toml"), "--out", str(out), "--json"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def equations(recipe: Recipe, folder: Path, here: probe.Probe) -> list[tuple[StageWork, Taken, laptop.Terms]]:
    """Each finished stage with its terms."""
    workload, found = Workload(recipe), taken(read(folder / "record.jsonl"))
    rows = []
    for stage in recipe.stages:
        if stage.name in found:
            work = workload.of(stage)
            rows.append((work, found[stage.name], laptop.terms(work, here, laptop.shares_taken(work, found[stage.name]))))
    return rows


def fit(rows: list[tuple[StageWork, Taken, laptop.Terms]]) -> dict[str, float]:
    """Non-negative factors by coordinate descent."""
    free = [name for name in TERMS if name not in FIXED]
    target = np.array([took.undisturbed for _, took, _ in rows])
    known = np.array([sum(FIXED[name] * terms.get(name, 0.0) for name in FIXED) for _, _, terms in rows])
    matrix = np.array([[terms.get(name, 0.0) for name in free] for _, _, terms in rows]) / target[:, None]
    wanted = 1.0 - known / target
    matrix = np.concatenate((matrix, WEIGHT * np.eye(len(free))))
    wanted = np.concatenate((wanted, np.full(len(free), WEIGHT * PRIOR)))
    factors = np.ones(len(free))
    for _ in range(20_000):
        for place in range(len(free)):
            column = matrix[:, place]
            rest = wanted - matrix @ factors + column * factors[place]
            factors[place] = max(0.0, float(column @ rest) / float(column @ column))
    return FIXED | dict(zip(free, factors.tolist(), strict=True))


def base_memory(rows: list[tuple[StageWork, Taken, laptop.Terms]], recipes: list[Recipe]) -> float:
    """What stages held beyond the tensors of their fullest step: the median, in bytes."""
    tensors = {stage.name: stage.memory for recipe in recipes for stage in Rehearsal(recipe, {}, accelerated=False).stages()}
    beyond = [took.memory - (tensors[work.name] or 0) for work, took, _ in rows if took.memory and tensors.get(work.name)]
    for work, took, _ in rows:
        if took.memory and tensors.get(work.name):
            print(f"{work.name:22} {work.kind:10} held {took.memory / 2**30:6.2f} GiB, tensors {(tensors[work.name] or 0) / 2**30:6.2f}")
    return float(np.median(beyond)) if beyond else 0.0


def write(factors: dict[str, float], memory: float, here: probe.Probe, stages: int) -> None:
    """laptop.toml."""
    terms = "\n".join(f'"{name}" = {factor:.4g}' for name, factor in factors.items())
    spreads = "\n".join(f"{name} = {list(value)}" for name, value in (("pace", PACE), ("answer", ANSWER), ("signal", SIGNAL)))
    TARGET.write_text(
        f"""# Made by benchmarks/laptop.py, which says how; see plan/laptop.py for what the terms are.
date = "{time.strftime("%Y-%m-%d", time.gmtime())}"
made = "from {stages} stages on {here.identity}, probed {here.date}"
{spreads}
base_memory = {memory:.3g}

[terms]
{terms}
""",
        encoding="utf-8",
    )


def main() -> None:
    """Runs, fits, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--also", action="append", default=[], metavar="RECIPE=RUN")
    parser.add_argument("--dry", action="store_true", help="print the fit, write nothing")
    arguments = parser.parse_args()
    here = probe.probed()
    rows = []
    for name in RECIPES:
        run(name, arguments.out / name)
        rows += equations(load_recipe(HERE / f"{name}.toml"), arguments.out / name, here)
    for pair in arguments.also:
        recipe, _, folder = pair.partition("=")
        rows += equations(load_recipe(recipe), Path(folder), here)
    factors = fit(rows)
    for work, took, terms in rows:
        predicted = sum(factors[name] * value for name, value in terms.items())
        times = f"took {took.undisturbed:8.2f} s  fitted {predicted:8.2f} s  {predicted / took.undisturbed - 1:+.0%}  busy {took.busy:.2f}"
        print(f"{work.name:22} {work.kind:10} {times}")
    memory = base_memory(rows, [load_recipe(HERE / f"{name}.toml") for name in RECIPES])
    for name, factor in factors.items():
        print(f"{name:26} {factor:.3f}")
    if not arguments.dry:
        write(factors, memory, here, len(rows))


if __name__ == "__main__":
    main()
