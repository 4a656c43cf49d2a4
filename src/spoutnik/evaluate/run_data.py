"""What a run trained on and what it is evaluated on, from what its folder holds."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spoutnik.data.corpus import open_corpus
from spoutnik.errors import UserError
from spoutnik.evaluate.contamination import ItemSet, file_texts, task_items
from spoutnik.evaluate.ngrams import Text
from spoutnik.recipe.loading import is_stored
from spoutnik.recipe.schema import TaskSpec
from spoutnik.run.directory import RunDirectory
from spoutnik.tasks import make

SAMPLES = "samples.jsonl"
_DECODED_TOGETHER = 1000
TRAINERS = ("rl", "sft", "dpo", "distill")


def is_run(path: Path) -> bool:
    """Whether this is a run's folder."""
    return RunDirectory(path).record_path.is_file() and (path / "stages").is_dir()


def definitions(run: Path) -> dict[str, dict[str, Any]]:
    """The stages that were begun, by name."""
    files = sorted((run / "stages").glob("*/definition.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def run_items(run: Path) -> list[ItemSet]:
    """The problems of all evaluations of a run, each task once. Raises UserError where there is none."""
    specs = [TaskSpec.model_validate(task) for stage in definitions(run).values() if stage["kind"] == "eval" for task in stage["tasks"]]
    if not specs:
        raise UserError(f"The run in {run} has no eval stage; name what it is evaluated on with --eval.")
    return [task_items(spec) for index, spec in enumerate(specs) if spec not in specs[:index]]


def unknown(run: Path) -> list[str]:
    """What the run learns from that cannot be looked into: models that it starts from, and stored distributions that it did not make."""
    stages = definitions(run)
    models = [stage["from"] for stage in stages.values() if stage["kind"] in TRAINERS and stage["from"] not in stages]
    return list(dict.fromkeys([*models, *(data for data in _data(stages) if data not in stages and is_stored(data))]))


def run_texts(run: Path) -> Iterator[Text]:
    """All that the stages of a run learn from: corpora, samples and files that are imitated, and the questions that are asked."""
    stages = definitions(run)
    for name, stage in stages.items():
        if stage["kind"] == "corpus":
            yield from _corpus_texts(RunDirectory(run).stage(name))
        elif stage["kind"] == "rl" or stage.get("mode") == "on-policy":
            yield from _asked(name, stage)
    for data in _data(stages):
        if data in stages:
            path = RunDirectory(run).stage(data) / SAMPLES
            yield from file_texts(path) if path.is_file() else ()  # one that is not finished has no file
        elif not is_stored(data):
            yield from file_texts(Path(data))


def _data(stages: dict[str, dict[str, Any]]) -> list[str]:
    """Stages and files whose answers are imitated. What a `logits` stage made is looked for where its own answers come from."""
    named = [stage.get("data") for stage in stages.values() if stage["kind"] in ("sft", "dpo", "logits", "distill")]
    return [data for data in dict.fromkeys(named) if data and stages.get(data, {}).get("kind") != "logits"]


def _corpus_texts(folder: Path) -> Iterator[Text]:
    """The documents as they were trained on; a stage that was begun and not finished left none."""
    if not (folder / "tokens.bin").is_file():
        return
    tokens, tokenizer = open_corpus(folder)
    documents, number = tokens.documents(tokenizer.eos_token_id), 0
    while batch := list(islice(documents, _DECODED_TOGETHER)):
        for text in tokenizer.backend.decode_batch(batch, skip_special_tokens=True):
            yield Text(f"{folder.name}, document {number}", text)
            number += 1


def _asked(name: str, stage: dict[str, Any]) -> Iterator[Text]:
    """Every problem that the stage may have drawn."""
    spec = TaskSpec.model_validate(stage["task"])
    task = make(spec.name, **spec.options)
    pool = stage.get("curriculum")
    count = pool["problems"] if pool else stage["steps"] * stage["prompts"] * stage.get("sampling_rounds", 1)
    for index in range(count):
        yield Text(f"{name}, problem {index}", task.problem(spec.split, stage["seed"], index).prompt)
