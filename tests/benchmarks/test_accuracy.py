"""What smaller precisions cost: the same problems for each of them, no two alike, and tables that follow from what is kept on disk."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.tasks import make
from spoutnik.text.tokenizer import train_bpe


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))


def test_no_problem_counts_twice_and_fewer_than_wanted_are_no_fault():
    from problems import distinct

    task = make("arithmetic", terms=[2], high=5)
    found = distinct(task, 50)
    assert 0 < len({problem.prompt for problem in found}) == len(found) < 50
    assert {problem.split for problem in found} == {"held-out"}
    assert distinct(task, 3) == found[:3]


def test_examples_are_solved_problems_of_the_training_split():
    from problems import ask

    tokenizer = train_bpe(["Question: Calculate 1+1.\nAnswer: 2\n\n" * 20], 300)
    task = make("arithmetic", terms=[2])
    problems = [task.problem("held-out", 0, index) for index in range(2)]
    (prompt, _), encoded = ask(tokenizer, task, problems, shots=2)
    examples = [task.problem("train", 0, index) for index in range(2)]
    lines = [line for example in examples for line in (f"Question: {example.prompt}", f"Answer: {example.answer}", "")]
    assert prompt.split("\n") == [*lines, f"Question: {problems[0].prompt}", "Answer:"]
    assert tokenizer.decode(encoded[0]).endswith(prompt)


@pytest.mark.parametrize("shots", [0, 2])
def test_every_problem_gets_a_verdict(shots, tokenizer):
    from problems import Exam, solve

    model = tiny_model("llama", vocab_size=tokenizer.vocab_size)
    engine = Engine(model, tokenizer, 4, None, TorchRunner(model, 4, 640))
    assert solve(engine, Exam.of("arithmetic", {"terms": [2]}, shots), 5, 3) == [False] * 5


def test_tables_are_made_of_what_is_on_disk_and_count_pairs(tmp_path, capsys):
    from accuracy import Found, read, write

    found = {name: Found() for name in ("float32", "bfloat16", "int8", "int4")}
    for each in found.values():
        for agreement in each.against.values():
            agreement.add(torch.eye(3).log_softmax(-1), torch.eye(3).log_softmax(-1))
        each.text_tokens, each.surprise = 4, 8.0
    found["bfloat16"].verdicts = {"one": "1100", "two": "11"}
    found["int4"].verdicts = {"one": "1010", "two": "11"}
    found["int8"].verdicts = {"one": "1100"}
    path = tmp_path / "results" / "accuracy-tiny.json"
    write(path, "Three tokens.", found)
    assert read(path) == ("Three tokens.", found)
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["subject"] == "Three tokens."
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out.removesuffix("\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if ", n = " in line]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("one, n = 4", "bfloat16", "0", "0"), ("one, n = 4", "int8", "0", "0"), ("one, n = 4", "int4", "1", "1"),
        ("two, n = 2", "bfloat16", "0", "0"), ("two, n = 2", "int4", "0", "0"),
        ("all together, n = 6", "bfloat16", "0", "0"), ("all together, n = 6", "int4", "1", "1"),
    ]  # fmt: skip
    assert rows[2][5].startswith("1.000 (")
