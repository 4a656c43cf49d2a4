"""Tasks are made by name; what is wrong is named."""

import subprocess
import sys

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import make, names


def test_names_are_those_that_make_takes() -> None:
    assert names() == ["arithmetic", "countdown", "letters", "words"]
    assert [make(name).name for name in names()] == names()


@pytest.mark.parametrize("name", ["", "count-down", "countdown:3", "json:x"])
def test_an_unknown_task_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"countdown.*gym:DATASET"):
        make(name)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("countdown", {"nums": [3]}, "'nums'; it takes numbers, low"),
        ("countdown", {"name": "x"}, "no option 'name'"),
        ("words", {"steps": [5]}, "steps is 5"),
        ("letters", {"kinds": ["riddle"]}, "kinds"),
        ("letters", {"kinds": []}, "kinds"),
        ("arithmetic", {"terms": [1]}, "terms is 1"),
        ("arithmetic", {"high": True}, "high is True"),
        ("arithmetic", {"operators": "++"}, "operators"),
        ("jsonl:x", {"pool": None}, "no option 'pool'; it takes question, answer, belongs_to"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(name, **options)


def test_listing_tasks_loads_nothing_heavy() -> None:
    code = "import sys, spoutnik.tasks; print(sorted({'torch', 'sympy', 'math_verify', 'reasoning_gym', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
