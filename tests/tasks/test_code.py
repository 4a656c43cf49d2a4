"""Code is right only if its tests pass, and no trick of an answer can make them."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.sandbox.limits import FULL, LANDLOCK
from spoutnik.sandbox.pool import SandboxPool
from spoutnik.tasks import make
from spoutnik.tasks.code import CodeTask, extract_code
from spoutnik.tasks.code_wire import decode, encode
from spoutnik.tasks.mixture import Mixture
from spoutnik.tasks.reward import grade

PROMPT = 'from typing import List\n\n\ndef total(numbers: List[int], start: int = 0) -> int:\n    """The sum of all numbers."""\n'
SOLUTION = "    return sum(numbers, start)\n"
TEST = """
def check(candidate):
    assert candidate([1, 2, 3]) == 6
    assert candidate([], start=4) == 4
    assert isinstance(candidate([10**30]), int)
    try:
        candidate(["a"])
    except TypeError:
        return
    assert False
"""


def row(number: int = 0, **fields: object) -> dict[str, object]:
    prompt = PROMPT.replace("all numbers", f"all {number} numbers")
    return {"task_id": f"t/{number}", "prompt": prompt, "entry_point": "total", "test": TEST, "canonical_solution": SOLUTION, **fields}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


@pytest.fixture(scope="module", params=[FULL, LANDLOCK], ids=["full", "landlock"])
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeTask]:
    path = write(tmp_path_factory.mktemp("code") / "code.jsonl", [row()])
    with SandboxPool(protections=request.param) as pool:
        try:
            pool.check()
        except UserError as error:
            pytest.skip(str(error))
        yield CodeTask(str(path), belongs_to="train", timeout_s=0.7, pool=pool)


RIGHT = {
    "the continuation": SOLUTION,
    "the whole function": PROMPT + SOLUTION,
    "only the function, with the prompt's imports": "def total(numbers: List[int], start=0):\n" + SOLUTION,
    "a lambda": "total = lambda numbers, start=0: sum(numbers, start)",
    "a fenced block after words": f"Here it is:\n```python\n{PROMPT}{SOLUTION}```\nDone.",
    "the last of two blocks": f"```\nx = 1/0\n```\nBetter:\n```py\n{PROMPT}{SOLUTION}\n```",
    "with output on the way": "def total(numbers, start=0):\n    print('hi' * 100)\n    return sum(numbers, start)",
}
WRONG = {
    "nothing": "",
    "another sum": "    return sum(numbers)\n",
    "no function": "x = 1",
    "no Python": "def total(: it is easy",
    "a hang": "def total(numbers, start=0):\n    while True: pass",
    "a hang while it is read": "def total(numbers, start=0): pass\nwhile True: pass",
    "a crash": "import os\nos.abort()",
    "too deep to read": "(" * 100_000,
    "much memory": "def total(numbers, start=0):\n    return bytearray(1 << 34)",
    "a value of no plain type": "def total(numbers, start=0):\n    return object()",
    "a message too long": "import os\nos.write(3, b'\\xff' * 4)\ndef total(numbers, start=0): pass",
}
CHEATS = {
    "leaving with status 0": "import os\nos._exit(0)",
    "raising SystemExit": "def total(numbers, start=0):\n    raise SystemExit(0)",
    "equal to everything": "class E(int):\n    __eq__ = lambda self, other: True\ndef total(numbers, start=0): return E()",
    "telling the tests to leave": """
import json, os
message = json.dumps({'error': ['SystemExit', '0']}).encode()
for _ in range(9): os.write(3, len(message).to_bytes(4, 'big') + message)
def total(): pass
""",
    "replacing Python's own": """
import builtins
builtins.AssertionError = builtins.isinstance = lambda *values: True
def total(numbers, start=0): return 6
""",
    "looking for the tests": """
import gc, os
assert os.read(0, 100) or [text for text in gc.get_objects() if isinstance(text, str) and 'candidate' in text]
def total(numbers, start=0): return sum(numbers, start)
""",
    "killing the tests": "import os\nos.kill(os.getppid(), 9)\nos.kill(os.getpid() - 1, 9)",
}  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_a_right_answer_passes_however_it_is_written(task: CodeTask, answer: str) -> None:
    assert task.verify(task.problem("train", 0, 0), answer) is True


@pytest.mark.parametrize("answer", [*WRONG.values(), *CHEATS.values()], ids=[*WRONG, *CHEATS])
def test_a_wrong_answer_and_a_trick_do_not_pass(task: CodeTask, answer: str) -> None:
    assert task.verify(task.problem("train", 0, 0), answer) is False


def test_a_completion_is_graded_by_its_answer_block(task: CodeTask) -> None:
    problem = task.problem("train", 0, 0)
    assert problem.answer == PROMPT.replace("all numbers", "all 0 numbers") + SOLUTION
    reward = grade(task, problem, f"I add them.</think>\n<answer>```python\n{problem.answer}```</answer>", thinking=True)
    assert (reward.accuracy, reward.format, reward.fault) == (1.0, 1.0, None)


CODE = PROMPT + SOLUTION
FOUND = {
    "the only block": (f"It adds.\n```python\n{CODE}```\nDone.", True),
    "beside blocks of another kind": (f"```text\nabc\n```\n```Python\n{CODE}\n  ```\n```\n6\n```", True),
    "the answer block alone, where there is a tag": (f"```python\n{CODE}```\n<answer>pass</answer>", False),
    "none, where the answer block is left open": (f"<answer>```python\n{CODE}```", None),
    "none of two": (f"```python\n{CODE}```\n```python\ntotal([1])\n```", None),
    "none that is not closed": (f"```python\n{CODE}", None),
    "none that is not said to be Python": (f"```\n{CODE}```", None),
    "none without a block": (CODE, None),
    "none in an empty block": ("```python\n\n```", None),
}


@pytest.mark.parametrize(("content", "right"), FOUND.values(), ids=FOUND)
def test_without_an_answer_block_the_only_python_block_is_the_answer(task: CodeTask, content: str, right: bool | None) -> None:
    problem = task.problem("train", 0, 0)
    assert (task.extract(problem, content) is None) == (right is None)
    reward = grade(task, problem, f"I add them.</think>\n{content}", thinking=True)
    assert (reward.accuracy, reward.fault) == (float(right or 0), None)
    mixed = Mixture(lambda name: task, [{"name": "code"}])
    assert mixed.extract(mixed.problem("train", 0, 0), content) == task.extract(problem, content)


def test_an_answer_in_the_thinking_is_none(task: CodeTask) -> None:
    assert grade(task, task.problem("train", 0, 0), f"```python\n{CODE}```\n</think>\nSee above.", thinking=True).accuracy == 0.0


def test_tests_without_check_count_as_they_stand(task: CodeTask) -> None:
    problem = task.problem("train", 0, 0)
    problem.data["test"] = "assert total([1, 2]) == 3"
    assert task.verify(problem, SOLUTION) is True
    assert task.verify(problem, "    return 4\n") is False


def test_splits_share_no_prompt_even_if_it_is_spaced_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(number) for number in range(60)])
    spaced = [row(number, prompt=str(row(number)["prompt"]).replace("\n", "\n\n")) for number in range(60)]
    tasks = [make(f"code:{path}"), make(f"code:{write(tmp_path / 'b.jsonl', spaced)}")]
    train, held_out = (
        {" ".join(each.problem(split, 0, i).prompt.split()) for each in tasks for i in range(60)} for split in ("train", "held-out")
    )
    assert len(train | held_out) == 60
    assert not train & held_out
    assert tasks[0].problem("train", 1, 3) == make(f"code:{path}").problem("train", 1, 3)


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row()).encode()))
    assert "def total" in make(f"code:{path}", belongs_to="train").problem("train", 0, 0).prompt
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot read"):
        make(f"code:{path}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "found list, expected an object with 'prompt', 'entry_point', 'test'"),
        (json.dumps(row(test=3)), "field 'test' is missing, empty or no text"),
        (json.dumps(row(entry_point="a b")), "entry_point is 'a b'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row()) + "\n" + line)
    with pytest.raises(UserError, match=rf"bad\.jsonl, line 2: .*{words}"):
        make(f"code:{path}")


@pytest.mark.parametrize(
    ("option", "words"),
    [({"timeout_s": 0}, "timeout_s is 0"), ({"protection": "none"}, "no protection 'none'"), ({"pool": 1}, "no option 'pool'")],
)
def test_a_bad_option_is_refused(tmp_path: Path, option: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(f"code:{write(tmp_path / 'a.jsonl', [row()])}", **option)


def test_an_open_block_reaches_to_the_end() -> None:
    assert extract_code("so:\n```python\nx = 1\ny = 2") == "x = 1\ny = 2"
    assert extract_code("x = '```'") == "x = '```'"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers(), max_size=1)
    ),
    max_leaves=6,
)


@given(plain)
def test_values_cross_unchanged_with_their_types(value: object) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert repr(back) == repr(value)
