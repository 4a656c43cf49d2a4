"""A program that only knows the tests by heart is told from one that does the task; the second judge is not fooled by its form."""

import json

import pytest

from spoutnik.errors import UserError
from spoutnik.sandbox.pool import shared_pool
from spoutnik.tasks import make
from spoutnik.tasks.recheck import second_verdict
from spoutnik.tasks.recheck_code import code_of

PROMPT = 'def longest(words: list, least: int = 0) -> str:\n    """The first of the longest words of at least so many letters."""\n'
SOLUTION = "    found = [word for word in words if len(word) >= least]\n    return max(found, key=len) if found else ''\n"
TEST = """
def check(candidate):
    assert candidate(["one", "three", "five"]) == "three"
    assert candidate(["a", "bb"], 3) == ""
    assert candidate([]) == ""
    assert candidate(["five", "nine"], least=2) == "five"
"""
BY_HEART = """def longest(words, least=0):
    return {"['one', 'three', 'five']": "three", "['five', 'nine']": "five"}.get(str(words), "")
"""
OTHERWISE = """def longest(words, least=0):
    best = ""
    for word in words:
        if len(word) >= least and len(word) > len(best):
            best = word
    return best
"""


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    try:
        shared_pool("full").check()
    except UserError as error:
        pytest.skip(str(error))
    row = {"prompt": PROMPT, "entry_point": "longest", "test": TEST, "canonical_solution": SOLUTION}
    path = tmp_path_factory.mktemp("code") / "code.jsonl"
    path.write_text(json.dumps(row) + "\n")
    task = make(f"code:{path}", belongs_to="train")
    found = task.problem("train", 0, 0)
    assert task.verify(found, BY_HEART), "the reward is fooled"
    assert task.verify(found, OTHERWISE)
    return found


def written(program):
    return f"hm</think>\n```python\n{program}```"


@pytest.mark.parametrize(("program", "expected"), [
    (PROMPT + SOLUTION, True), (SOLUTION, True), (OTHERWISE, True), (BY_HEART, False),
    ("import os\nos._exit(0)", False), ("def longest(words, least=0):\n    raise SystemExit(0)", False), ("x = 1", False),
    ("import os, json\nfor _ in range(99): os.write(1, b'48 48')\ndef longest(words, least=0): return 1", False),
    ("def longest(words, least=0):\n    while True: pass", None),
])  # fmt: skip
def test_other_inputs_tell_what_the_tests_do_not(problem, program, expected):
    assert second_verdict(problem, written(program)) is expected


def test_an_answer_block_counts_as_well_and_no_program_is_wrong(problem):
    assert second_verdict(problem, f"hm</think><answer>```py\n{OTHERWISE}```</answer>") is True
    assert second_verdict(problem, f"{written(OTHERWISE)}\n```python\nx\n```") is False
    assert second_verdict(problem, f"```python\n{OTHERWISE}```</think>See above.") is False


@pytest.mark.parametrize(("content", "code"), [
    ("```python\nx\n```", "x\n"), ("a ```Python\nx\n``` b ```text\ny\n```", "x\n"), ("```python\nx\n``` ```python\ny\n```", None),
    ("```python\nx", None), ("```pythonic\nx\n```", None), ("x", None), ("<answer>x</answer>", "x"), ("<answer>x", None),
    ("<answer>```\nx\n```</answer>", "x\n"), ("<answer>x</answer><answer>y</answer>", None),
])  # fmt: skip
def test_where_a_program_stands(content, code):
    assert code_of(content) == code
