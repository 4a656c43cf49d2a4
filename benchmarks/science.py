"""The variants of recipes/science.toml with several seeds: tables of held-out loss and of the experts' balance, as Markdown.

    python benchmarks/science.py --seeds 1 2 3 --out runs/science        # everything; goes on where it was stopped
    python benchmarks/science.py --seeds 77 --out runs/science --tune    # learning rates of both optimisers, halved and doubled
    python benchmarks/science.py --seeds 77 --out runs/science --time    # milliseconds a step, variants in turns

A seed decides the corpus, the weights and the order of the tokens. Variants of one seed share corpus and tokenizer, so differences are taken
by seed. An interval is over seeds (Student's t).
"""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from algorithms import interval

from spoutnik.data.corpus import open_corpus
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import Price, PretrainStage, Recipe, load_recipe
from spoutnik.run.context import StageContext
from spoutnik.run.ledger import Ledger
from spoutnik.run.record import Event, Record, read
from spoutnik.train.pretrain import fresh_state, pretrain_step

BASE = "moe"
TUNED = ("moe", "adamw")
TIMED = ("moe", "dense", "dense-total", "mtp", "adamw")
TURN = 12
"""Steps of one turn."""


def variants(recipe: Recipe) -> list[PretrainStage]:
    return [stage for stage in recipe.stages if isinstance(stage, PretrainStage)]


def tuning(recipe: Recipe) -> Recipe:
    """The corpus and the tuned variants, each at half its rate, its rate and twice its rate."""
    stages = [
        stage.model_copy(update={"name": f"{stage.name}-{stage.learning_rate * factor:.3g}", "learning_rate": stage.learning_rate * factor})
        for stage in variants(recipe)
        for factor in (0.5, 1.0, 2.0)
        if stage.name in TUNED and stage.learning_rate
    ]
    return recipe.model_copy(update={"stages": [recipe.stages[0], *stages]})


def milliseconds(recipe: Recipe, corpus: Path, turns: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) milliseconds a step of every timed variant, turn by turn."""
    tokens, tokenizer = open_corpus(corpus)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in TIMED}
    with TemporaryDirectory() as folder:
        ledger, record = Ledger(Path(folder) / "ledger.json", Price()), Record(Path(folder) / "record.jsonl")
        context = StageContext("timing", Path(folder), Path(folder), Path, record, ledger, seed=recipe.seed)
        timed = [(stage, fresh_state(stage, tokenizer, recipe.seed)) for stage in variants(recipe) if stage.name in TIMED]
        for turn in range(turns + 1):
            for stage, state in timed:
                wall, processor = time.perf_counter(), time.process_time()
                for _ in range(TURN):
                    pretrain_step(state, stage, context, tokens)
                took = (time.perf_counter() - wall) / TURN * 1e3, (time.process_time() - processor) / TURN * 1e3
                if turn:  # the first turn warms up
                    found[stage.name].append(took)
    return found


def figures(runs: list[list[Event]], name: str) -> list[dict[str, float]]:
    """By seed: the last held-out losses by source, the mean over sources, and the router's figures."""
    found = []
    for events in runs:
        held_out = [event for event in events if event["event"] == "held-out" and event["stage"] == name]
        if not held_out:
            continue
        last, steps = held_out[-1], [event for event in events if event["event"] == "step" and event["stage"] == name]
        one = {source["source"]: source["nats_per_token"] for source in last["sources"]}
        one["all"] = mean(one.values())
        for key in ("max_violation", "dead_experts"):
            if key in last:
                one[key] = last[key]
                one[f"batch_{key}"] = mean(event[key] for event in steps[3 * len(steps) // 4 :])
        one["steps"], one["flops"] = (
            len(steps),
            next(e["costs"]["flops"] for e in events if e["event"] == "stage_end" and e["stage"] == name),
        )
        found.append(one)
    return found


def table(runs: list[list[Event]], names: Iterable[str], base: str | None) -> str:
    """Held-out nats a token of each source, their mean, and its difference from `base` by seed."""
    by_name = {name: figures(runs, name) for name in names}
    sources = [key for key in next(found[0] for found in by_name.values() if found) if key not in _NO_SOURCE]
    heads = ["", "n", "steps", "TFLOP", *sources, "mean", *([f"mean less {base}'s"] if base else []), "violation", "in a batch", "dead"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, found in by_name.items():
        if not found:
            continue
        cells = [name, str(len(found)), f"{found[0]['steps']:.0f}", f"{found[0]['flops'] / 1e12:.2f}"]
        cells += [interval([one[key] for one in found], 1.0, 3) for key in (*sources, "all")]
        if base:
            pairs = zip(found, by_name[base], strict=False)
            cells.append("0" if name == base else interval([one["all"] - other["all"] for one, other in pairs], 1.0, 3))
        for key in ("max_violation", "batch_max_violation", "dead_experts"):
            cells.append(interval([one[key] for one in found], 1.0, 2) if key in found[0] else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_NO_SOURCE = ("all", "steps", "flops", "max_violation", "dead_experts", "batch_max_violation", "batch_dead_experts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    parser.add_argument("--recipe", default="science")
    parser.add_argument("--stages", nargs="+", help="only these variants")
    parser.add_argument("--tune", action="store_true", help="learning rates instead of the variants")
    parser.add_argument("--time", type=int, metavar="TURNS", help="time steps in so many turns instead of training")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    recipe = tuning(recipe) if arguments.tune else recipe
    out = arguments.out / ("tune" if arguments.tune else "")
    for seed in arguments.seeds:
        for only in ["corpus"] if arguments.time else arguments.stages or [None]:
            run_recipe(recipe.model_copy(update={"seed": seed}), out / f"seed-{seed}", arguments.recipe, only=only)
    if arguments.time:
        for name, turns in milliseconds(recipe, out / f"seed-{arguments.seeds[0]}" / "stages" / "corpus", arguments.time).items():
            walls, processors = zip(*turns, strict=True)
            print(f"{name}: {median(walls):.1f} ms a step ({min(walls):.1f} to {max(walls):.1f}), processor {median(processors):.1f} ms")
        return
    runs = [read(out / f"seed-{seed}" / "record.jsonl") for seed in arguments.seeds]
    print(
        f"Seeds {', '.join(map(str, arguments.seeds))}. Held-out nats a token with 95 % intervals over seeds; violation over all held-out tokens.\n"
    )
    print(table(runs, [stage.name for stage in variants(recipe)], None if arguments.tune else BASE))


if __name__ == "__main__":
    main()
