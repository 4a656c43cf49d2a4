"""What the engine's smaller precisions cost: each against bfloat16 and float32, on the kernels that serve.

    python benchmarks/accuracy.py smollm2
    python benchmarks/accuracy.py CHECKPOINT --task countdown --option numbers=[3] --problems 500

Tokens: bfloat16 answers the prompts greedily, and every precision reads these answers; counted is how often it finds the same token
likeliest, with a 95 % Wilson interval, and how far its distribution lies from bfloat16's and float32's (mean KL, nats a token).
Perplexity is that of `--text`. With `--task` every precision answers the same held-out problems greedily; "lost" and "gained" count the
problems whose verdict changed against bfloat16. SmolLM2-135M takes about two minutes on 2 cores.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

import spoutnik
from spoutnik.cli.output import task_options
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, FORMATS, Chunk, NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.request import Completion, Request
from spoutnik.engine.runner import Quantization, choose_runner
from spoutnik.evaluate.statistics import wilson
from spoutnik.model.transformer import CausalLM
from spoutnik.tasks import make
from spoutnik.train.rollouts import judge

HERE = Path(__file__).resolve().parent
REFERENCES = ("bfloat16", "float32")
ROWS = 128
"""Most tokens of one call, which bounds the memory of their logits."""
STRETCH = 512
"""Tokens of the text that are read together."""


@dataclass
class Passage:
    """Token ids, and from which place on they are predicted; the ones before are only read."""

    ids: list[int]
    start: int = 1


@dataclass
class Found:
    """Sums over all tokens of one precision. `kept` and `divergence` are by reference."""

    tokens: int = 0
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFERENCES, 0))
    divergence: dict[str, float] = field(default_factory=lambda: dict.fromkeys(REFERENCES, 0.0))
    text_tokens: int = 0
    surprise: float = 0.0
    verdicts: list[bool] = field(default_factory=list)


class Reader:
    """A model on the kernels in one precision, which reads what is put before it."""

    def __init__(self, model: CausalLM, precision: str, length: int):
        self._engine, pages = NativeEngine(), -(-length // PAGE)
        self._program = write_program(model, self._engine, precision, ROWS, ROWS, length)
        self._engine.cache(precision != "float32", model.config.num_hidden_layers, *cache_shape(model), pages)
        self._pages = list(range(pages))

    def logprobs(self, passage: Passage) -> Tensor:
        """[N, vocab_size] float32, of the passage's tokens from `start` on."""
        ids, first, found = passage.ids[:-1], passage.start - 1, []
        for begin in range(0, len(ids), ROWS):
            piece = ids[begin : begin + ROWS]
            picked = range(min(max(first - begin, 0), len(piece)), len(piece))
            _, logits = self._engine.step([Chunk(piece, begin, self._pages)], picked, np.zeros(len(picked), DRAW), with_logits=True)
            assert logits is not None
            found.append(logits)
        return torch.cat(found).log_softmax(-1)


def load(name: str, precision: str) -> spoutnik.Model:
    """The model whose weights this precision is made from, as `spoutnik.load` does it."""
    return spoutnik.load(name, dtype="bfloat16" if precision == "bfloat16" else "float32")


def answers(model: spoutnik.Model, precision: str, prompts: Sequence[list[int]], most: int) -> list[Completion]:
    """The product's own greedy answers."""
    length, quantize = model.config.max_position_embeddings, precision if precision in get_args(Quantization) else None
    engine = Engine(model.model, model.tokenizer, 64, length, choose_runner(model.model, 64, length, quantize))
    return engine.generate([Request(ids, most, temperature=0) for ids in prompts])


def render(model: spoutnik.Model, prompts: Sequence[str]) -> list[list[int]]:
    """As a conversation's first message if the model has a template for it, else as they stand."""
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None:
        return [tokenizer.encode(prompt, add_special_tokens=True) for prompt in prompts]
    return [tokenizer.encode(tokenizer.render([{"role": "user", "content": prompt}])) for prompt in prompts]


def read_answers(readers: dict[str, Reader], passages: Sequence[Passage], found: dict[str, Found]) -> None:
    """Every precision reads every passage; likeliest tokens and distributions are compared."""
    for passage in passages:
        logprobs = {precision: reader.logprobs(passage) for precision, reader in readers.items()}
        for precision, mine_NV in logprobs.items():
            sums = found[precision]
            sums.tokens += len(mine_NV)
            for reference in REFERENCES:
                true_NV = logprobs[reference]
                sums.kept[reference] += int((mine_NV.argmax(-1) == true_NV.argmax(-1)).sum())
                sums.divergence[reference] += float((true_NV.exp() * (true_NV - mine_NV)).sum())


def read_text(readers: dict[str, Reader], ids: list[int], found: dict[str, Found]) -> None:
    """How surprised each precision is by a text, in stretches of STRETCH tokens."""
    for begin in range(0, len(ids) - 1, STRETCH):
        passage = Passage(ids[begin : begin + STRETCH + 1])
        for precision, reader in readers.items():
            found[precision].surprise -= float(reader.logprobs(passage).gather(1, torch.tensor(passage.ids[1:])[:, None]).sum())
            found[precision].text_tokens += len(passage.ids) - 1


def solve(models: dict[str, spoutnik.Model], options: argparse.Namespace, found: dict[str, Found]) -> None:
    """Every precision's greedy answers to the same held-out problems, judged."""
    task = make(options.task, **task_options(options.option))
    problems = [task.problem("held-out", 0, index) for index in range(options.problems)]
    for precision, model in models.items():
        prompts = [model.tokenizer.render([{"role": "user", "content": problem.prompt}]) for problem in problems]
        encoded = [model.tokenizer.encode(prompt) for prompt in prompts]
        for job in zip(problems, prompts, encoded, answers(model, precision, encoded, options.max_new_tokens), strict=True):
            found[precision].verdicts.append(judge(task, *job).reward.accuracy > 0)


def table(found: dict[str, Found]) -> Iterator[str]:
    """One line a precision."""
    solved = any(sums.verdicts for sums in found.values())
    heads = [f"greedy tokens as {name} (95 %) | KL from {name}" for name in REFERENCES] + ["perplexity"]
    heads += ["problems solved (95 %)", "lost", "gained"] if solved else []
    yield "| | " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * (len(heads) + len(REFERENCES))
    for precision, sums in found.items():
        cells = []
        for reference in REFERENCES:
            low, high = wilson(sums.kept[reference], sums.tokens)
            cells.append(f"{sums.kept[reference] / sums.tokens:.2%} ({low:.2%} to {high:.2%})")
            cells.append(f"{sums.divergence[reference] / sums.tokens:.5f}")
        cells.append(f"{math.exp(sums.surprise / sums.text_tokens):.3f}")
        if solved:
            right, n = sum(sums.verdicts), len(sums.verdicts)
            low, high = wilson(right, n)
            pairs = list(zip(found["bfloat16"].verdicts, sums.verdicts, strict=True))
            cells += [f"{right / n:.1%} ({low:.1%} to {high:.1%})", str(pairs.count((True, False))), str(pairs.count((False, True)))]
        yield f"| {precision} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, a GGUF file or a name")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.txt", help="one a line; of .jsonl files the field `question`")
    parser.add_argument("--most-prompts", type=int, default=64)
    parser.add_argument("--text", type=Path, default=HERE.parent / "docs" / "design.md", help="whose perplexity is taken")
    parser.add_argument("--task", help="held-out problems to solve; see `spoutnik tasks list`")
    parser.add_argument("--option", action="append", default=[], help="an option of the task, as key=value")
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--max-new-tokens", type=int, default=128, help="of an answer")
    options = parser.parse_args()
    lines = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line][: options.most_prompts]
    prompts = [json.loads(line)["question"] for line in lines] if options.prompts.suffix == ".jsonl" else lines

    loaded = {precision: load(options.model, precision) for precision in REFERENCES}
    models = {precision: loaded.get(precision, loaded["float32"]) for precision in FORMATS}
    found = {precision: Found() for precision in FORMATS}
    encoded = render(loaded["bfloat16"], prompts)
    completions = answers(loaded["bfloat16"], "bfloat16", encoded, options.max_new_tokens)
    passages = [Passage([*ids, *each.token_ids], len(ids)) for ids, each in zip(encoded, completions, strict=True)]
    length = max(STRETCH, *(len(passage.ids) for passage in passages)) + 1
    readers = {precision: Reader(model.model, precision, length) for precision, model in models.items()}
    read_answers(readers, passages, found)
    read_text(readers, loaded["bfloat16"].tokenizer.encode(options.text.read_text(encoding="utf-8")), found)
    if options.task:
        solve(models, options, found)
    write(options, found, len(passages))


def write(options: argparse.Namespace, found: dict[str, Found], passages: int) -> None:
    """The table on standard output and in results/, the sums beside it."""
    name, any_of = Path(options.model).name, next(iter(found.values()))
    task = f"; {options.task} ({', '.join(options.option) or 'as it is'}), n = {len(any_of.verdicts)}" if options.task else ""
    text = "\n".join([
        f"# Precisions of {name}",
        "",
        f"{any_of.tokens:,} tokens of {passages} greedy answers in bfloat16 ({options.prompts.name}); perplexity of {options.text.name}, "
        f"{any_of.text_tokens:,} tokens{task}.",
        "",
        *table(found),
        "",
    ])  # fmt: skip
    print(text)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    sums: dict[str, Any] = {precision: asdict(each) for precision, each in found.items()}
    (results / f"accuracy-{name}.md").write_text(text, encoding="utf-8")
    (results / f"accuracy-{name}.json").write_text(json.dumps(sums) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
