"""A recipe with several seeds: tables of held-out accuracy, as Markdown. By default the algorithms of recipes/algorithms.toml.

    python benchmarks/algorithms.py --seeds 1 2 3 --out runs/algorithms            # everything; goes on where it was stopped
    python benchmarks/algorithms.py --seeds 1 --out runs/algorithms --stage dapo   # one algorithm and what it builds on
    python benchmarks/algorithms.py --recipe r1-smollm2 --out runs/r1-smollm2      # another recipe; each task has its rows

A seed decides the corpus, the base, the problems and the draws. An interval is over seeds (Student's t), so it needs two.
"""

import argparse
import os
from pathlib import Path
from statistics import mean, stdev

from spoutnik.pipeline import run_recipe
from spoutnik.recipe import load_recipe
from spoutnik.run.record import Event, read

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a 95 % interval of the mean of so many seeds."""


def interval(values: list[float], scale: float = 100.0, digits: int = 1) -> str:
    """The mean, and half the width of its interval where there is one."""
    text = f"{scale * mean(values):.{digits}f}"
    if len(values) not in T95:
        return text
    return f"{text} ± {scale * T95[len(values)] * stdev(values) / len(values) ** 0.5:.{digits}f}"


def row(model: str, runs: list[list[Event]]) -> str:
    """One line of the table: over seeds, of the evaluation and of the last quarter of the steps."""
    accuracy = [event["accuracy"] for events in runs for event in events if event["event"] == "eval" and event["model"] == model]
    steps = [[event for event in events if event["event"] == "step" and event["stage"] == model] for events in runs]
    ends = [event for events in runs for event in events if event["event"] == "stage_end" and event["stage"] == model]
    minutes = [event["costs"]["wall_s"] / 60 for event in ends]
    cells = [interval(accuracy) if accuracy else "-"]
    for metric, scale in (("response_length", 1.0), ("no_signal", 100.0), ("clip_fraction", 100.0), ("off_policy", 100.0)):
        late = [mean([event[metric] for event in one[3 * len(one) // 4 :]]) for one in steps if one and metric in one[-1]]
        cells.append(f"{scale * mean(late):.3g}" if late else "-")
    cells.append(f"{mean(minutes):.1f}" if minutes else "-")
    return f"| {model} | {' | '.join(cells)} |"


def details(runs: list[list[Event]]) -> list[str]:
    """Lines of a table: every model on every task and text, seed by seed with Wilson's interval, and over seeds."""
    found: dict[tuple[str, str], list[Event]] = {}
    for event in (event for events in runs for event in events if event["event"] in ("eval", "perplexity")):
        found.setdefault((event.get("task") or event["text"], event["model"]), []).append(event)
    lines = []
    for (subject, model), events in found.items():
        if events[0]["event"] == "eval":
            seeds = [f"{100 * event['accuracy']:.1f} ({100 * event['low']:.1f} to {100 * event['high']:.1f})" for event in events]
            over, unit = interval([event["accuracy"] for event in events]), f"%, n = {events[0]['n']}"
        else:
            seeds = [f"{event['perplexity']:.2f}" for event in events]
            over, unit = interval([event["perplexity"] for event in events], 1.0), f"perplexity, {events[0]['tokens']:,} tokens"
        lines.append(f"| {subject} | {model} | {'; '.join(seeds)} | {over} | {unit} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--recipe", default="algorithms")
    parser.add_argument("--stage", help="only this one, and what it builds on")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    for seed in arguments.seeds:
        run_recipe(recipe.model_copy(update={"seed": seed}), arguments.out / f"seed-{seed}", arguments.recipe, only=arguments.stage)
    runs = [read(arguments.out / f"seed-{seed}" / "record.jsonl") for seed in arguments.seeds]
    models = next(stage.models for stage in recipe.stages if stage.kind == "eval")
    print(f"Seeds {', '.join(map(str, arguments.seeds))}; {os.cpu_count()} cores. Held-out accuracy with its 95 % interval over seeds; the")
    print("other columns are means over the last quarter of the steps.\n")
    print("| | accuracy, % | tokens an answer | groups without signal, % | clipped, % | off-policy, % | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in models:
        print(row(model, runs))
    print("\n| task or text | model | by seed, with Wilson's 95 % interval | over seeds | |\n| --- | --- | --- | --- | --- |")
    print("\n".join(details(runs)))


if __name__ == "__main__":
    main()
