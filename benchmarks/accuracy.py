"""What the engine's smaller precisions cost: each against bfloat16 and float32, on the kernels that serve.

    python benchmarks/accuracy.py smollm2
    python benchmarks/accuracy.py smollm2 --part tokens --part int4      # these parts alone; the others stay as they are in results/
    python benchmarks/accuracy.py CHECKPOINT --task countdown --option numbers=[3] --problems 500

Tokens: bfloat16 answers the prompts greedily, and every precision reads these answers; counted is how often it finds the same token
likeliest, with a 95 % Wilson interval, and how far its distribution lies from bfloat16's and float32's (mean KL, nats a token).
Perplexity is that of `--text`. Then every precision answers the same held-out problems greedily: "lost" and "gained" count the problems
whose verdict changed against bfloat16, and the ratio of both accuracies has a 95 % interval for pairs. With SmolLM2-135M on 2 cores
a part takes one to two minutes, float32's problems more.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from problems import EASY, Exam, solve
from torch import Tensor

import spoutnik
from spoutnik.cli.output import task_options
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, FORMATS, Chunk, NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.request import Request
from spoutnik.engine.runner import Quantization, choose_runner
from spoutnik.evaluate.fidelity import Agreement, Passage, surprise
from spoutnik.evaluate.statistics import paired_ratio, wilson
from spoutnik.model.transformer import CausalLM

HERE = Path(__file__).resolve().parent
REFERENCES = ("bfloat16", "float32")
ROWS = 128
"""Most tokens of one call, which bounds the memory of their logits."""
STRETCH = 512
"""Tokens of the text that are read together."""


@dataclass
class Found:
    """All that is known of one precision."""

    against: dict[str, Agreement] = field(default_factory=lambda: {reference: Agreement() for reference in REFERENCES})
    text_tokens: int = 0
    surprise: float = 0.0
    verdicts: dict[str, str] = field(default_factory=dict)
    """By task, a letter a problem: 1 is solved."""


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


def make_engine(model: spoutnik.Model, precision: str) -> Engine:
    """The product's own engine in this precision."""
    length, quantize = model.config.max_position_embeddings, precision if precision in get_args(Quantization) else None
    return Engine(model.model, model.tokenizer, 64, length, choose_runner(model.model, 64, length, quantize))


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
            for reference in REFERENCES:
                found[precision].against[reference].add(logprobs[reference], mine_NV)


def read_text(readers: dict[str, Reader], ids: list[int], found: dict[str, Found]) -> None:
    """How surprised each precision is by a text, in stretches of STRETCH tokens."""
    for begin in range(0, len(ids) - 1, STRETCH):
        passage = Passage(ids[begin : begin + STRETCH + 1])
        for precision, reader in readers.items():
            found[precision].surprise += surprise(reader.logprobs(passage), torch.tensor(passage.ids[1:]))
            found[precision].text_tokens += len(passage.ids) - 1


def compare_tokens(options: argparse.Namespace, found: dict[str, Found]) -> str:
    """Fills in everything but the verdicts, and says what was read."""
    lines = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line][: options.most_prompts]
    prompts = [json.loads(line)["question"] for line in lines] if options.prompts.suffix == ".jsonl" else lines
    models = {precision: load(options.model, precision) for precision in REFERENCES}
    teacher = models["bfloat16"]
    encoded = render(teacher, prompts)
    completions = make_engine(teacher, "bfloat16").generate([Request(ids, options.max_new_tokens, temperature=0) for ids in encoded])
    passages = [Passage([*ids, *each.token_ids], len(ids)) for ids, each in zip(encoded, completions, strict=True)]
    length = max(STRETCH, *(len(passage.ids) for passage in passages)) + 1
    readers = {precision: Reader(models.get(precision, models["float32"]).model, precision, length) for precision in FORMATS}
    for sums in found.values():
        sums.against, sums.text_tokens, sums.surprise = Found().against, 0, 0.0
    read_answers(readers, passages, found)
    read_text(readers, teacher.tokenizer.encode(options.text.read_text(encoding="utf-8")), found)
    return (
        f"{found['bfloat16'].against['bfloat16'].tokens:,} tokens of {len(passages)} greedy answers in bfloat16 ({options.prompts.name}); "
        f"perplexity of {options.text.name}, {found['bfloat16'].text_tokens:,} tokens."
    )


def token_table(found: dict[str, Found]) -> Iterator[str]:
    """One line a precision."""
    heads = [f"greedy tokens as {name} (95 %) | KL from {name}" for name in REFERENCES] + ["perplexity"]
    yield "| | " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * (len(heads) + len(REFERENCES))
    for precision, sums in found.items():
        cells = []
        for agreement in sums.against.values():
            low, high = agreement.interval
            cells += [f"{agreement.greedy:.2%} ({low:.2%} to {high:.2%})", f"{agreement.kl:.5f}"]
        yield f"| {precision} | " + " | ".join([*cells, f"{math.exp(sums.surprise / sums.text_tokens):.3f}"]) + " |"


def task_table(found: dict[str, Found]) -> Iterator[str]:
    """One line for each task and precision, and for each precision with all tasks together."""
    yield "| | | solved (95 %) | lost | gained | of bfloat16's (95 %) |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    titles = list(found["bfloat16"].verdicts)
    for title, members in [*((title, [title]) for title in titles), *([("all together", titles)] if len(titles) > 1 else [])]:
        of_bfloat16 = "".join(found["bfloat16"].verdicts[each] for each in members)
        for precision, sums in found.items():
            if not set(members) <= sums.verdicts.keys():
                continue
            mine = "".join(sums.verdicts[each] for each in members)
            right, n = mine.count("1"), len(mine)
            pairs = list(zip(of_bfloat16, mine, strict=True))
            both, lost, gained = (pairs.count(pair) for pair in (("1", "1"), ("1", "0"), ("0", "1")))
            cells = ["{:.1%} ({:.1%} to {:.1%})".format(right / n, *wilson(right, n)), str(lost), str(gained)]
            if precision != "bfloat16":
                cells.append("{:.3f} ({:.3f} to {:.3f})".format(right / max(1, both + lost), *paired_ratio(both, gained, lost)))
            yield f"| {title}, n = {n:,} | {precision} | " + " | ".join([*cells, ""][:4]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, a GGUF file or a name")
    parser.add_argument(
        "--part", action="append", choices=("tokens", *FORMATS), help="instead of all: the tokens, or a precision's problems"
    )
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.txt", help="one a line; of .jsonl files the field `question`")
    parser.add_argument("--most-prompts", type=int, default=64)
    parser.add_argument("--text", type=Path, default=HERE.parent / "docs" / "design.md", help="whose perplexity is taken")
    parser.add_argument("--task", help="held-out problems to solve instead of easy ones; see `spoutnik tasks list`")
    parser.add_argument("--option", action="append", default=[], help="an option of the task, as key=value")
    parser.add_argument("--shots", type=int, default=0, help="solved problems before each; 0 asks in a conversation")
    parser.add_argument("--problems", type=int, default=2000, help="of a task at most, no two the same")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="of an answer in a conversation")
    options = parser.parse_args()
    exams = (Exam.of(options.task, task_options(options.option), options.shots),) if options.task else EASY

    path = HERE / "results" / f"accuracy-{Path(options.model).name}.json"
    subject, found = read(path) if options.part and path.exists() else ("", {precision: Found() for precision in FORMATS})
    parts = options.part or ("tokens", *FORMATS)
    if "tokens" in parts:
        subject = compare_tokens(options, found)
    for precision in [part for part in parts if part != "tokens"]:
        engine = make_engine(load(options.model, precision), precision)
        verdicts = {exam.title: solve(engine, exam, options.problems, options.max_new_tokens) for exam in exams}
        found[precision].verdicts = {title: "".join("01"[right] for right in each) for title, each in verdicts.items()}
    write(path, subject, found)


def read(path: Path) -> tuple[str, dict[str, Found]]:
    """What an earlier run wrote."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    found = {precision: Found(**each) for precision, each in saved["precisions"].items()}
    for each in found.values():
        each.against = {reference: Agreement(**sums) for reference, sums in each.against.items()}
    return saved["subject"], found


def write(path: Path, subject: str, found: dict[str, Found]) -> None:
    """The tables on standard output and in results/, the sums beside them."""
    blocks = [f"# Precisions of {path.stem.removeprefix('accuracy-')}"]
    if subject:
        blocks += [subject, "\n".join(token_table(found))]
    if found["bfloat16"].verdicts:
        blocks += ["Held-out problems, no two the same, answered greedily; lost and gained against bfloat16.", "\n".join(task_table(found))]
    text = "\n\n".join(blocks) + "\n"
    print(text)
    path.parent.mkdir(exist_ok=True)
    saved = {"subject": subject, "precisions": {precision: asdict(each) for precision, each in found.items()}}
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
