"""The variants of recipes/science.toml with several seeds: tables of held-out loss and of the experts' balance, as Markdown.

    python benchmarks/science.py --seeds 1 2 3 --out runs/science        # everything; goes on where it was stopped
    python benchmarks/science.py --seeds 77 --out runs/science --tune    # learning rates of both optimisers, halved and doubled
    python benchmarks/science.py --seeds 77 --out runs/science --time    # milliseconds a step, variants in turns

A seed decides the corpus, the weights and the order of the tokens. Variants of one seed share corpus and tokenizer, so differences are
taken by seed. An interval is over seeds (Student's t).
"""

import argparse
import time
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from algorithms import interval

from spoutnik.data.corpus import open_corpus
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import PretrainStage, Price, Recipe, load_recipe
from spoutnik.run.context import StageContext
from spoutnik.run.ledger import Ledger
from spoutnik.run.record import Event, Record, read
from spoutnik.train.pretrain import fresh_state, pretrain_step

TUNED = ("moe", "adamw")
TIMED = ("moe", "dense", "dense-total", "mtp", "adamw")
TURN = 12
"""Steps of one turn."""
MEAN, STEPS, TFLOP = "mean", "steps", "TFLOP"
DIGITS = {STEPS: 0, TFLOP: 2, "violation": 2, "in a batch": 2, "dead": 1, "dead in a batch": 1}


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


def figures(events: list[Event], name: str) -> dict[str, float]:
    """One variant of one run: held-out losses by source and their mean, steps, operations, the router's figures; empty if not done."""
    held_out = [event for event in events if event["event"] == "held-out" and event["stage"] == name]
    end = [event for event in events if event["event"] == "stage_end" and event["stage"] == name]
    if not held_out or not end:
        return {}
    last, steps = held_out[-1], [event for event in events if event["event"] == "step" and event["stage"] == name]
    losses = {source["source"]: source["nats_per_token"] for source in last["sources"]}
    found = {**losses, MEAN: mean(losses.values()), STEPS: len(steps), TFLOP: end[-1]["costs"]["flops"] / 1e12}
    if "max_violation" in last:
        late = steps[3 * len(steps) // 4 :]
        found |= {"violation": last["max_violation"], "in a batch": mean(event["max_violation"] for event in late)}
        found |= {"dead": last["dead_experts"], "dead in a batch": mean(event["dead_experts"] for event in late)}
    return found


def table(runs: list[list[Event]], names: list[str], against: str) -> str:
    """A line a variant: the figures' means over seeds, and the mean loss less that of `against`, taken by seed."""
    by_name = {name: [figures(events, name) for events in runs] for name in names}
    columns = list(max((one for all_ in by_name.values() for one in all_), key=len))
    lines = [f"| | n | {' | '.join(columns)} | {MEAN} less {against}'s |", f"|{' --- |' * (len(columns) + 3)}"]
    for name, all_ in by_name.items():
        found = [one for one in all_ if one]
        if not found:
            continue
        cells = [interval([one[column] for one in found], 1.0, DIGITS.get(column, 3)) if column in found[0] else "-" for column in columns]
        gaps = [one[MEAN] - other[MEAN] for one, other in zip(all_, by_name.get(against, [{}]), strict=False) if one and other]
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} | {interval(gaps, 1.0, 3) if gaps and name != against else '-'} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    parser.add_argument("--recipe", default="science")
    parser.add_argument("--stages", nargs="+", help="only these variants")
    parser.add_argument("--against", default="moe", help="the variant that the others' mean loss is held against")
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
    print(f"Seeds {', '.join(map(str, arguments.seeds))}: means with 95 % intervals. Held-out nats a token, by source and their mean;")
    print("violation of the worst layer and dead experts of all, over the held-out tokens and in a batch (mean of the last quarter).\n")
    print(table(runs, [stage.name for stage in variants(recipe)], arguments.against))


if __name__ == "__main__":
    main()
