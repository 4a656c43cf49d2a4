"""Contamination: files, tasks and whole runs are read as what they are, and reports count what they say they count."""

import gzip
import json

import pytest

from spoutnik.errors import UserError
from spoutnik.evaluate import contamination
from spoutnik.evaluate.contamination import check, figures, file_items, file_texts, task_items, worst
from spoutnik.evaluate.ngrams import Text
from spoutnik.evaluate.run_data import is_run, run_items, run_texts, unknown
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import parse_recipe
from spoutnik.recipe.schema import TaskSpec

LONG = "The keeper of the lighthouse counts seven ships in the morning and nine ships in the evening of every day."
COUNTDOWN = {"name": "countdown", "numbers": [2], "high": 9}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_short_items_are_counted_apart_and_found_as_a_whole(tmp_path):
    items = file_items(jsonl(tmp_path / "eval.jsonl", [{"question": LONG}, {"question": "Calculate 60*47."}, {"question": "What is 2+2?"}]))
    (report,), scanned = check([items], [Text("a", "He said: calculate 60 * 47!"), Text("b", "What is 2 + 3? What is it?")])
    assert (report.long, report.overlapping, report.short, report.short_whole) == (1, 0, 2, 1)
    assert [found["text"] for found in worst(report, 9)] == ["Calculate 60*47."]
    assert (scanned.texts, figures(report, 0)["share"]) == (2, 0.0)


def test_every_string_of_a_line_and_every_paragraph_of_a_text_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setattr(contamination, "_BLOCK_CHARACTERS", 16)
    items = file_items(jsonl(tmp_path / "eval.jsonl", [{"prompt": LONG}]))
    chat = jsonl(tmp_path / "chat.jsonl", [{"id": 1, "messages": [{"role": "user", "content": [{"text": LONG}]}]}])
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(chat.read_bytes()))
    text = tmp_path / "book.txt"
    text.write_text("one\n\n" + LONG.replace(" ", "\n") + "\nlast", encoding="utf-8")
    for path in (chat, packed, text):
        (report,), _ = check([items], file_texts(path))
        assert report.whole == 1, path
        assert str(path) in worst(report, 1)[0]["found_in"]


def test_a_folder_is_all_its_files_and_an_empty_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        list(file_texts(tmp_path))
    (tmp_path / "deep").mkdir()
    jsonl(tmp_path / "deep" / "a.jsonl", [{"text": "one"}])
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")
    assert [text.text for text in file_texts(tmp_path)] == ["two", "one"]


@pytest.mark.parametrize(
    ("row", "field", "expected"),
    [
        ({"question": "a", "prompt": "b"}, None, "a"),
        ({"question": "a", "stem": "b"}, "stem", "b"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}, None, "u"),
    ],
)
def test_the_question_is_found(tmp_path, row, field, expected):
    assert file_items(jsonl(tmp_path / "eval.jsonl", [row]), field).texts == [expected]


@pytest.mark.parametrize(("row", "field"), [({"stem": "b"}, None), ({"question": "a"}, "stem"), ({"question": 3}, None)])
def test_a_line_without_a_question_is_refused_with_its_place(tmp_path, row, field):
    with pytest.raises(UserError, match=r"eval.jsonl, line 1 has no question as text .*--field"):
        file_items(jsonl(tmp_path / "eval.jsonl", [row]), field)


@pytest.mark.parametrize("content", [b"{broken\n", b'{"text": "\xff"}\n'])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"train.jsonl"):
        list(file_texts(tmp_path / "train.jsonl"))


def test_a_task_is_asked_for_the_problems_that_an_evaluation_asks():
    items = task_items(TaskSpec.model_validate({**COUNTDOWN, "split": "held-out", "problems": 4}))
    assert len(items.texts) == 4
    assert items.places[3] == "held-out problem 3"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A corpus, a model of it, samples that are imitated, and an evaluation, each in a second."""
    task = COUNTDOWN
    base = {"kind": "pretrain", "name": "base", "data": "corpus", "model": {"family": "llama", "depth": 1}, "steps": 1,
            "batch_tokens": 128, "sequence_length": 64}  # fmt: skip
    sample = {"kind": "sample", "name": "samples", "from": "base", "task": task, "problems": 3, "max_new_tokens": 4, "keep": "all"}
    sft = {"kind": "sft", "name": "sft", "from": "base", "data": "samples", "steps": 1, "batch_size": 2, "learning_rate": 1e-4}
    rl = {"kind": "rl", "name": "rl", "from": "base", "task": task, "prompts": 2, "group": 2, "max_new_tokens": 4, "steps": 2,
          "learning_rate": 1e-4}  # fmt: skip
    tasks = [{**task, "problems": 3}, {"name": "arithmetic", "problems": 2}]
    evaluation = {"kind": "eval", "name": "eval", "models": ["base"], "tasks": tasks, "max_new_tokens": 4}
    corpus = {"kind": "corpus", "name": "corpus", "sources": [{"task": task}], "tokens": 3000, "vocab_size": 330}
    recipe = parse_recipe({"name": "small", "seed": 1, "stage": [corpus, base, sample, sft, rl, evaluation]}, "test")
    return run_recipe(recipe, tmp_path_factory.mktemp("run") / "out").path


def test_all_that_a_run_learns_from_is_looked_into(run):
    texts = list(run_texts(run))
    assert {text.where.split(",")[0].rpartition("/")[2] for text in texts} == {"corpus", "samples.jsonl", "rl"}
    asked = [text for text in texts if text.where.startswith("rl,")]
    assert len(asked) == 4
    assert sum(text.where.startswith("corpus,") for text in texts) > 10
    assert is_run(run)
    assert unknown(run) == []


def test_a_run_is_checked_against_its_own_evaluations(run):
    held_out, other = check(run_items(run), run_texts(run))[0]
    assert (held_out.items.name, held_out.short, held_out.short_whole) == ("countdown", 3, 0)
    assert (other.items.name, other.short, other.short_whole) == ("arithmetic", 2, 0)


def test_a_leak_into_a_run_is_found(run):
    items = run_items(run)[0]
    texts = [*run_texts(run), Text("leak", f"As someone said: {items.texts[1]}")]
    report = check([items], texts)[0][0]
    assert [found["item"] for found in worst(report, 9)] == ["held-out problem 1"]
