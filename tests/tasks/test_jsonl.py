"""JSONL files: the usual layouts are read, a bad line is named, answers are judged as numbers and as mathematics."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import Problem, make
from spoutnik.tasks.jsonl import JsonlTask, Row, read_rows
from spoutnik.tasks.reward import grade
from spoutnik.tasks.workers import VerifierPool


def write(path: Path, records: list[Any]) -> str:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(
        tmp_path / "sums.jsonl",
        [{"question": f"What is {i}+{i}?", "answer": f"{i}+{i}=<<{i}+{i}={2 * i}>>\n#### {2 * i}"} for i in range(80)],
    )


def test_a_files_own_solution_is_a_trace_without_marks_that_earns_the_whole_reward(file: str) -> None:
    task = make(f"jsonl:{file}")
    problem = task.problem("train", 0, 0)
    n = int(problem.answer) // 2
    text = task.trace(problem, random.Random(0))
    assert text == f"{n}+{n}=\n</think>\n<answer>{2 * n}</answer>"
    reward = grade(task, problem, text, True)
    assert (reward.accuracy, reward.format) == (1.0, 1.0)


def test_without_a_written_solution_there_is_no_trace(tmp_path: Path) -> None:
    task = make(f"jsonl:{write(tmp_path / 'bare.jsonl', [{'question': 'a', 'answer': '7'}])}", belongs_to="train")
    with pytest.raises(UserError, match="has no worked traces"):
        task.trace(task.problem("train", 0, 0), random.Random(0))


def test_gsm8k_and_messages_and_plain_lines_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.jsonl",
        [
            {"question": "a", "answer": "1+1=2\n#### 1,002"},
            {"question": "b", "answer": 7},
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "<think>x #### 1</think>8"},
                ]
            },
        ],
    )
    assert read_rows(Path(path), "question", "answer") == [Row("a", "1,002", "1+1=2"), Row("b", "7", ""), Row("c", "8", "")]


def test_every_question_is_in_one_split_and_each_pass_shows_all_in_a_new_order(file: str) -> None:
    task = make(f"jsonl:{file}")
    held_out = {task.problem("held-out", 0, index).prompt for index in range(80)}
    train = [task.problem("train", 0, index).prompt for index in range(2 * (80 - len(held_out)))]
    first, second = train[: len(train) // 2], train[len(train) // 2 :]
    assert held_out
    assert not held_out & set(train)
    assert len(held_out) + len(set(first)) == 80
    assert sorted(first) == sorted(second)
    assert first != second
    assert task.problem("train", 1, 0) == make(f"jsonl:{file}").problem("train", 1, 0)


def test_a_file_can_belong_to_one_split(file: str) -> None:
    task = make(f"jsonl:{file}", belongs_to="held-out")
    assert len({task.problem("held-out", 0, index).prompt for index in range(80)}) == 80
    with pytest.raises(UserError, match="no question in the train split"):
        task.problem("train", 0, 0)


def test_other_field_names_are_options(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"problem": "1+1?", "solution": "2"}])
    task = make(f"jsonl:{path}", question="problem", answer="solution", belongs_to="train")
    assert task.problem("train", 0, 0).answer == "2"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "found list"),
        ('{"question": "a"}', "field 'answer' is missing"),
        ('{"question": "a", "answer": ["b"]}', "field 'answer' is list"),
        ('{"question": " ", "answer": "b"}', "empty"),
        ('{"question": "a", "answer": "####"}', "empty"),
        ('{"messages": []}', "user turn"),
        ('{"messages": 3}', "user turn"),
        ('{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "x"}]}', "'content' is missing"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n\n' + line)
    with pytest.raises(UserError, match=rf"bad\.jsonl, line 3: .*{words}"):
        make(f"jsonl:{path}")


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        make(f"jsonl:{tmp_path}/none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no question"):
        make(f"jsonl:{tmp_path}/empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not UTF-8"):
        make(f"jsonl:{tmp_path}/binary.jsonl")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonlTask]:
    path = write(tmp_path_factory.mktemp("judge") / "a.jsonl", [{"question": "a", "answer": "1"}])
    with VerifierPool(timeout_s=4) as pool:
        yield JsonlTask(path, pool=pool)


def asked(answer: str) -> Problem:
    return Problem("jsonl", "train", 0, 0, "", answer)


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("1002", "1,002", True),
        ("34", "34 or 35", False),
        ("34", "35, 34", False),
        ("34", "9**9**9", False),
        ("1/2", r"\frac{1}{2}", True),
        ("x+1", "1+x", True),
        (r"\sqrt{2}", r"2^{1/2}", True),
        (r"\sqrt{2}", r"\sqrt{3}", False),
        ("(1, 2)", "(1,3)", False),
        ("Paris", " paris ", True),
    ],
)
def test_answers_are_judged_as_numbers_then_as_mathematics(judge: JsonlTask, reference: str, answer: str, right: bool) -> None:
    pytest.importorskip("math_verify")
    assert judge.verify(asked(reference), answer) is right


def test_an_answer_that_explodes_ends_as_a_fault(judge: JsonlTask) -> None:
    pytest.importorskip("math_verify")
    reward = grade(judge, asked(r"\sqrt{2}"), "so</think><answer>9^{9^{9^{9}}}</answer>", thinking=True)
    assert reward.accuracy == 0.0
    assert reward.faulted
    assert judge.verify(asked("x+1"), "1+x")
