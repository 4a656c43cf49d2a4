"""Tasks of EleutherAI's lm-evaluation-harness on data at hand: `lm-eval:gsm8k`, `lm-eval:mytask.yaml`. For evaluations alone.

The harness, which imports much, is imported when such a task is made, and told before to fetch nothing.
"""

import copy
import functools
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.base import HELD_OUT, Problem, no_trace

EXAMPLES_SEED = 1234
"""Of the choice of solved examples: the harness's own, so that every model sees the same ones."""
Template = Callable[..., str]
"""(messages, add_generation_prompt) -> text."""
Scores = Mapping[str, Any]
"""What a task says of one answer, by "metric,filter"; a number where the metric is a mean, else what its aggregation takes."""


@dataclass
class HarnessTask:
    """`source` is a YAML file in the harness's form, or the name of one of its tasks, which then needs `data`.

    `data` is a JSONL file with the documents that are asked, in the task's own fields, `examples` one with those that are shown as solved,
    `shots` how many of them. `chat` asks in a local model's chat template, an example a turn, as models over the network always are.
    `max_gen_toks` replaces the task's own. `metric` and `filter` choose what counts as solved: else it is the first that is 0 or 1.
    """

    source: str
    data: str | None = None
    examples: str | None = None
    shots: int | None = None
    chat: bool = False
    max_gen_toks: int | None = None
    metric: str | None = None
    filter: str | None = None
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.name = f"lm-eval:{self.source}"
        self._task, self._documents = _open(self.source, self.data, self.examples, self.shots)
        filters = [each.name for each in self._task._filters]
        if self.filter is not None and self.filter not in filters:
            raise UserError(f"The task {self.source!r} has no filter {self.filter!r}; it has: {', '.join(filters)}.")

    def available(self, wanted: int) -> int:
        """How many of so many problems there are."""
        return min(wanted, len(self._documents))

    @property
    def generates(self) -> bool:
        """Whether answers are written; else likelihoods of given texts decide."""
        return bool(self._task.OUTPUT_TYPE == "generate_until")

    def check(self, samples: int, remote: Sequence[str]) -> None:
        """Raises UserError where so many answers to each problem, or these models over the network, make no sense."""
        if self.generates:
            return
        if remote:
            raise UserError(
                f"The task {self.source!r} is decided by likelihoods, which servers of chat models do not give; "
                f"leave {', '.join(remote)} out, or take a task that lets the model write (generate_until)."
            )
        if samples > 1:
            raise UserError(f"The task {self.source!r} is decided by likelihoods, of which there is one; ask for one sample.")

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Document `index`, in the file's order; the prompt is its question without the examples before it."""
        if split != HELD_OUT:
            raise UserError(f"The task {self.name!r} is for evaluations; train on another one.")
        document = self._documents[index]
        text, target = self._task.doc_to_text(document), self._task.doc_to_target(document)
        asked = text if isinstance(text, str) and text else f"{self._choices(document)}{target}"
        return Problem(self.name, split, seed, index, asked, str(target))

    def verify(self, problem: Problem, answer: str) -> bool:
        raise UserError(f"The task {self.name!r} rewards nothing: it is for evaluations, which grade by the harness's own metrics.")

    def trace(self, problem: Problem, rng: Any) -> str:
        raise no_trace(self.name)

    def requests(self, count: int, template: Template | None) -> list[list[Any]]:
        """The harness's requests for each of the first `count` documents, as raw text or in a chat template."""
        task = self._task
        task.set_fewshot_seed(EXAMPLES_SEED)
        made = []
        for number, document in enumerate(self._documents[:count]):
            context = task.fewshot_context(
                document, num_fewshot=task.config.num_fewshot or 0, apply_chat_template=template is not None,
                fewshot_as_multiturn=template is not None, chat_template=template, gen_prefix=task.doc_to_prefix(document),
            )  # fmt: skip
            found = task.construct_requests(
                doc=document,
                ctx=context,
                metadata=(self.source, number, 1),
                apply_chat_template=template is not None,
                chat_template=template,
            )
            made.append(found if isinstance(found, list) else [found])
        return made

    @property
    def begins_answers(self) -> bool:
        """Whether the task writes the beginning of each answer itself."""
        return any(self._task.doc_to_prefix(document) for document in self._documents[:1])

    def settings(self, max_new_tokens: int, temperature: float) -> dict[str, Any]:
        """How answers are generated: the task's own words for it, `max_new_tokens` where it has no length.

        A `temperature` above 0 replaces the task's.
        """
        from lm_eval.models.utils import normalize_gen_kwargs

        settings: dict[str, Any] = dict(normalize_gen_kwargs(self._task.config.generation_kwargs, max_new_tokens))
        settings |= {"max_gen_toks": self.max_gen_toks} if self.max_gen_toks else {}
        return settings | ({"do_sample": True, "temperature": temperature} if temperature else {})

    def grade(self, requests: Sequence[Any], responses: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
        """(scores, the filtered answer where it is text) of one response to each request of a document."""
        given = [copy.copy(request) for request in requests]
        for request, response in zip(given, responses, strict=True):
            request.resps, request.filtered_resps = [response], {}
        scores: dict[str, Any] = {}
        for each in self._task._filters:
            each.apply(given)
            values = self._task.process_results(given[0].doc, [request.filtered_resps[each.name] for request in given])
            scores |= {f"{metric},{each.name}": _plain(value) for metric, value in values.items()}
        answer = given[0].filtered_resps[self.filter or self._task._filters[0].name]
        return scores, answer if isinstance(answer, str) else None

    def deciding(self, scores: Sequence[Scores]) -> str | None:
        """Which score says whether an answer is right: 0 or 1 in each of `scores`, and averaged. None where the task has no such metric.

        Raises UserError where `metric` or `filter` ask for one that is not so.
        """
        keys = [key for key in (scores[0] if scores else {}) if self._wanted(key)]
        for key in keys:
            if self.is_mean(key) and all(each.get(key) in (0, 1) for each in scores):
                return key
        if (self.metric or self.filter) and scores:
            known = ", ".join(scores[0])
            raise UserError(
                f"The task {self.source!r} has no metric as asked for that is right or wrong; its metrics (with filters): {known}."
            )
        return None

    def is_mean(self, key: str) -> bool:
        """Whether this metric of all documents is the mean of the documents'."""
        return getattr(self._aggregation(key), "__name__", "") == "mean"

    def higher_is_better(self, key: str) -> bool | None:
        found: bool | None = self._task.higher_is_better().get(key.rpartition(",")[0])
        return found

    def aggregate(self, key: str, values: Sequence[Any]) -> float:
        """A metric of all documents."""
        return float(self._aggregation(key)([tuple(value) if isinstance(value, list) else value for value in values]))

    def _aggregation(self, key: str) -> Callable[[list[Any]], Any]:
        from lm_eval.api.metrics import mean

        found: Callable[[list[Any]], Any] = self._task.aggregation().get(key.rpartition(",")[0], mean)
        return found

    def _wanted(self, key: str) -> bool:
        metric, _, chosen = key.rpartition(",")
        return self.metric in (None, metric) and self.filter in (None, chosen)

    def _choices(self, document: Any) -> str:
        return "\n".join([*self._task.doc_to_choice(document), ""]) if self._task.config.doc_to_choice else ""


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=8)
def _open(source: str, data: str | None, examples: str | None, shots: int | None) -> tuple[Any, list[Any]]:
    """The harness's task and its documents. Raises UserError for what does not exist or cannot be run here."""
    prepare()
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    config = _config(source, Path(data) if data else None, Path(examples) if examples else None, shots)
    try:
        loaded: Any = TaskManager(include_defaults=False).load([config])
        (task,) = loaded["tasks"].values()
        documents = list(task.eval_docs)
    except UserError:
        raise
    except Exception as error:  # whatever a task file makes the harness do
        raise UserError(
            f"lm-evaluation-harness cannot open the task {source!r}: {type(error).__name__}: {error}; mend the file."
        ) from error
    if not isinstance(task, ConfigurableTask) or getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise UserError(f"The task {source!r} needs images, or runs programs outside our sandbox (take code:PATH for those); take another.")
    if (task.config.repeats or 1) > 1:
        raise UserError(
            f"The task {source!r} asks for {task.config.repeats} answers to each problem; copy it with `repeats: 1`, and ask for samples."
        )
    if not documents:
        raise UserError(f"The task {source!r} has no documents; give a longer file.")
    return task, documents


def _config(source: str, data: Path | None, examples: Path | None, shots: int | None) -> dict[str, Any]:
    """The task's definition: a YAML file, or a name of the harness's, with its data replaced by local JSONL files."""
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(source)
    named = path.suffix not in (".yaml", ".yml")
    if named:
        manager = _all_tasks()
        if source not in manager.all_subtasks:
            raise UserError(f"lm-evaluation-harness has no task {source!r} (or it is a group of tasks); give a task's name or a YAML file.")
        if data is None:
            raise UserError(f"The task {source!r} takes its data from the network; give the same documents as a JSONL file, as data=FILE.")
        path = Path(str(manager.task_index[source].yaml_path))
    elif not path.is_file():
        raise UserError(f"There is no task file {path}; give a YAML file in the form of lm-evaluation-harness, or the name of a task.")
    config: dict[str, Any] = dict(load_yaml(str(path.absolute()), resolve_func=True))
    config.setdefault("task", source if named else path.stem)
    config |= {} if shots is None else {"num_fewshot": shots}
    return {**config, **_local(data, examples, config)} if data else config


@functools.cache
def _all_tasks() -> Any:
    """The index of all tasks that the harness ships, which takes seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _local(data: Path, examples: Path | None, config: dict[str, Any]) -> dict[str, Any]:
    """What replaces a task's data."""
    for path in (data, examples):
        if path is not None and not path.is_file():
            raise UserError(f"There is no file {path}; give a JSONL file with one document a line.")
    wanted = config.get("num_fewshot")
    if wanted and examples is None:
        raise UserError(f"The task shows {wanted} solved examples first; give a JSONL file of them as examples=FILE, or shots=0.")
    files = {"test": str(data.absolute()), **({"train": str(examples.absolute())} if examples else {})}
    train = "train" if examples else None
    return {
        "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}, "test_split": "test",
        "validation_split": None, "training_split": train, "fewshot_split": train,
    }  # fmt: skip


@functools.cache
def prepare() -> Any:
    """Tells the libraries, before they are imported, to fetch nothing and to be quiet; their copies of the data end with this process."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("lm-evaluation-harness is not installed; run: pip install 'spoutnik[lm-eval]'.")
    cache = tempfile.TemporaryDirectory(prefix="spoutnik-lm-eval-")
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ |= {"HF_DATASETS_CACHE": cache.name, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in ("lm_eval", "datasets", "evaluate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return cache
