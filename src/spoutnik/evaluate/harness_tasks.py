"""Tasks of lm-evaluation-harness on data at hand: which task, which file, what came out. The harness itself is imported by `run` alone."""

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoutnik.errors import UserError
from spoutnik.evaluate.statistics import wilson

if TYPE_CHECKING:
    from spoutnik.evaluate.harness import EngineLM

Z = 1.959964


@dataclass(frozen=True)
class Metric:
    """One metric of a task, with its 95 % interval: Wilson's where each document is right or wrong, else a mean's, if it is one."""

    task: str
    metric: str
    filter: str
    n: int
    shots: int
    value: float
    low: float | None
    high: float | None


def check_installed() -> None:
    """Raises UserError where the harness is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("lm-evaluation-harness is not installed; run: pip install 'spoutnik[lm-eval]'.")


def stay_offline(cache: Path) -> None:
    """Tells the Hugging Face libraries, before they are imported, to fetch nothing and to keep their copies of the data in `cache`."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ |= {"HF_DATASETS_CACHE": str(cache), "TOKENIZERS_PARALLELISM": "false"}


def task_config(task: str, data: Path | None, examples: Path | None, shots: int | None) -> dict[str, Any]:
    """The task's definition: a YAML file, or a name of the harness's, with its data replaced by local JSONL files.

    `data` has the documents that are asked, `examples` those that are shown before. Raises UserError for what does not exist.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(task)
    named = path.suffix not in (".yaml", ".yml")
    if named:
        manager = _all_tasks()
        if task not in manager.all_subtasks:
            raise UserError(f"lm-evaluation-harness has no task {task!r} (or it is a group of tasks); give a task's name or a YAML file.")
        if data is None:
            raise UserError(f"The task {task!r} takes its data from the network; give the same documents as a JSONL file with --data.")
        path = Path(str(manager.task_index[task].yaml_path))
    elif not path.is_file():
        raise UserError(f"There is no task file {path}; give a YAML file in the form of lm-evaluation-harness, or the name of a task.")
    config: dict[str, Any] = dict(load_yaml(str(path.absolute()), resolve_func=True))
    config.setdefault("task", task if named else path.stem)
    return {**config, **_local(data, examples, shots, config)} if data else config


@functools.cache
def _all_tasks() -> Any:
    """The index of all tasks that the harness ships, which takes seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _local(data: Path, examples: Path | None, shots: int | None, config: dict[str, Any]) -> dict[str, Any]:
    """What replaces a task's data."""
    for path in (data, examples):
        if path is not None and not path.is_file():
            raise UserError(f"There is no file {path}; give a JSONL file with one document a line.")
    wanted = config.get("num_fewshot") if shots is None else shots
    if wanted and examples is None:
        raise UserError(f"The task shows {wanted} solved examples first; give a JSONL file of them with --examples, or --shots 0.")
    files = {"test": str(data.absolute()), **({"train": str(examples.absolute())} if examples else {})}
    train = "train" if examples else None
    return {
        "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}, "test_split": "test",
        "validation_split": None, "training_split": train, "fewshot_split": train, **({} if shots is None else {"num_fewshot": shots}),
    }  # fmt: skip


def run(lm: "EngineLM", config: dict[str, Any], limit: int | None, chat: bool, seed: int) -> list[Metric]:
    """Runs one task on one model; `limit` documents at most. With `chat` prompts are conversations in the model's template."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results: Any = simple_evaluate(
        lm, tasks=[dict(config)], limit=limit, apply_chat_template=chat, bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_defaults=False), random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed,
        fewshot_random_seed=seed,
    )  # fmt: skip
    found = []
    for name, values in results["results"].items():
        samples, shots = results["samples"][name], results["n-shot"].get(name, 0)
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                of_filter = [sample for sample in samples if sample.get("filter", chosen) == chosen]
                low, high = _interval(metric, value, [sample[metric] for sample in of_filter if metric in sample])
                found.append(Metric(name, metric, chosen, len(of_filter), shots, value, low, high))
    return found


def _interval(metric: str, value: float, each: list[Any]) -> tuple[float | None, float | None]:
    """Of the mean of what each document got; none where the metric is something else, such as a perplexity."""
    if not each or not all(isinstance(one, int | float) for one in each) or abs(sum(each) / len(each) - value) > 1e-6:
        return None, None
    if set(each) <= {0, 1}:
        return wilson(sum(each), len(each))
    mean, n = sum(each) / len(each), len(each)
    spread = Z * (sum((one - mean) ** 2 for one in each) / max(n - 1, 1) / n) ** 0.5
    return value - spread, value + spread
