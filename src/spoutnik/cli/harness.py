"""spoutnik harness: a task of lm-evaluation-harness on models here and data at hand."""

from pathlib import Path
from typing import Annotated

import typer


def harness(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="A checkpoint's folder, a GGUF file, or a model's name.")],
    task: Annotated[str, typer.Option(help="A task file (YAML) in the form of lm-evaluation-harness, or the name of one of its tasks.")],
    data: Annotated[Path | None, typer.Option(help="The task's documents: a JSONL file, instead of what the task would fetch.")] = None,
    examples: Annotated[Path | None, typer.Option(help="With --data: a JSONL file of documents to be shown as solved examples.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="With --data: how many solved examples.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat template.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    max_batch: Annotated[int, typer.Option(min=1, help="Documents that run at the same time.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of what is sampled and of the choice of examples.")] = 1234,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Run a task of lm-evaluation-harness on local data, on our engine, without a network."""
    import logging
    import tempfile
    from dataclasses import asdict

    from spoutnik.cli.output import print_json, table
    from spoutnik.errors import UserError
    from spoutnik.evaluate import harness_tasks

    harness_tasks.check_installed()
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="spoutnik-harness-") as cache:
        harness_tasks.stay_offline(Path(cache))
        config = harness_tasks.task_config(task, data, examples, shots)

        from spoutnik.checkpoint.load import open_model
        from spoutnik.engine.generator import Engine
        from spoutnik.evaluate.harness import EngineLM
        from spoutnik.library import DTYPES
        from spoutnik.preflight import find_model

        if dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
        paths = {name: find_model(name) for name in models}
        found = {}
        for name, path in paths.items():
            engine = Engine(*open_model(path, DTYPES[dtype]), max_batch=max_batch)
            found[name] = harness_tasks.run(EngineLM(engine, name, seed), config, limit, chat, seed)
    if as_json:
        print_json([{"model": name, **asdict(metric)} for name, metrics in found.items() for metric in metrics])
        return
    rows = [
        [name, each.task, each.metric, each.filter, str(each.shots), str(each.n), f"{each.value:.4f}",
         f"{each.low:.4f} to {each.high:.4f}" if each.low is not None else ""]
        for name, metrics in found.items() for each in metrics
    ]  # fmt: skip
    print(table([["model", "task", "metric", "filter", "shots", "n", "value", "95% interval"], *rows]))
