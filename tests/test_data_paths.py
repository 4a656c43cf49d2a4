"""Recipes that take paths: what is missing is named with what it is, and paths come wherever a text names them."""

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe import load_recipe
from spoutnik.recipe.data_paths import fill_in

CONTENT = {"name": "x", "data": {"train": "what to learn from"}, "stage": [{"task": {"name": "jsonl:${train}"}, "steps": 3}]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    return str(path)


def test_a_path_comes_where_it_is_named_and_the_table_goes(file):
    assert fill_in(CONTENT, {"train": file}, "x.toml") == {"name": "x", "stage": [{"task": {"name": f"jsonl:{file}"}, "steps": 3}]}


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        (CONTENT, {}, r"x.toml needs the path of train \(what to learn from\); give it with --data train=PATH"),
        (CONTENT, {"train": "FILE", "tset": "FILE"}, "takes no path 'tset'; it takes train"),
        ({"name": "x"}, {"train": "FILE"}, "takes no path 'train'; it takes none"),
        (CONTENT, {"train": "nowhere"}, "train = 'nowhere' is no file; give the path of what to learn from"),
        ({"name": "${other}", "data": {"train": "t"}}, {"train": "FILE"}, r"\$\{other\} stands for a path that \[data\] does not name"),
        ({"data": {"train": 3}}, {}, r"\[data\] must hold a text for each path"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(file, content, given, expected):
    with pytest.raises(UserError, match=expected):
        fill_in(content, {name: file if path == "FILE" else path for name, path in given.items()}, "x.toml")


@pytest.mark.parametrize("name", ["gsm8k", "humaneval"])
def test_shipped_recipes_ask_for_their_files(name):
    with pytest.raises(UserError, match=rf"{name}.toml needs the path of \w+ \(.*\); give it with --data"):
        load_recipe(name)


def test_a_shipped_recipe_reads_its_task_from_the_path(file):
    stages = load_recipe("gsm8k", {"train": file, "test": file}).stages
    assert {stage.task.name for stage in stages if getattr(stage, "task", None)} == {f"jsonl:{file}"}
