"""Rejection sampling keeps what it says it keeps."""

import json

import pytest

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
from spoutnik.recipe.schema import SampleStage
from spoutnik.tasks import make
from spoutnik.tasks.reward import Reward
from spoutnik.train import rejection
from spoutnik.train.examples import read_examples
from spoutnik.train.kept import is_faithful, kept
from spoutnik.train.rejection import SampleState, run_sample
from spoutnik.train.rollouts import Rollout

TASK = make("countdown", numbers=[2], high=9)


def stage(**changes):
    settings = {"problems": 4, "max_new_tokens": 5, "samples_per_problem": 2}
    return SampleStage.model_validate(
        {"name": "stage", "from": "x", "task": {"name": "countdown", "numbers": [2], "high": 9}, **settings, **changes}
    )


def rollout(text, length, accuracy=1.0, form=1.0, steps=2, right=2, supported=True, fault=None):
    reward = Reward(accuracy, form, 1.0, fault)
    return Rollout(TASK.problem("train", 0, 0), [1], [2] * length, [-1.0] * length, text, False, reward, steps, right, supported)


GOOD = [rollout("long", 9), rollout("short", 3), rollout("middle", 5)]
BAD = [rollout("wrong", 1, accuracy=0.0), rollout("ill-formed", 1, form=0.0), rollout("fault", 1, accuracy=0.0, fault="timeout")]
UNFAITHFUL = [
    rollout("wrong sum", 1, right=1), rollout("no sum", 1, steps=0, right=0), rollout("unsupported", 1, supported=False),
    rollout("a try\n\nanother\n\na try", 1),
]  # fmt: skip


def texts(rows):
    return [row["completion"] for row in rows]


def test_one_right_and_well_formed_sample_a_problem_is_kept():
    assert texts(kept(BAD + GOOD, stage(prefer="shortest"))) == ["short"]
    assert texts(kept(BAD + GOOD, stage(prefer="first"))) == ["long"]
    assert kept(BAD, stage()) == []


def test_faithful_means_every_sum_right_one_that_reaches_the_answer_and_no_line_twice():
    assert not any(map(is_faithful, UNFAITHFUL))
    assert texts(kept(UNFAITHFUL + GOOD, stage(keep="correct-and-faithful"))) == ["short"]
    assert texts(kept(UNFAITHFUL + GOOD, stage(keep="correct", prefer="first"))) == ["wrong sum"]


def test_all_means_all():
    assert texts(kept(BAD + GOOD, stage(keep="all"))) == ["wrong", "ill-formed", "fault", "long", "short", "middle"]


def test_a_row_says_where_it_comes_from():
    (row,) = kept(GOOD[:1], stage())
    problem = TASK.problem("train", row["seed"], row["index"])
    assert row["prompt"] == problem.prompt
    assert row["correct"] is True
    assert "teachers" not in row
    teachers = [{"teacher": "t", "terms": "allowed"}]
    assert [row["teachers"] for row in kept(GOOD[:1], stage(), teachers)] == [teachers]


def test_saved_samples_come_back_whatever_characters_they_hold(tmp_path):
    state = SampleState(2, kept([rollout("a\u2028b\x85c\nd\x1ce", 1)], stage(keep="all")))
    rejection._save(state, tmp_path)
    assert rejection._load(tmp_path) == state
    rejection._save(SampleState(1, []), tmp_path)
    assert rejection._load(tmp_path) == SampleState(1, [])


def test_the_stage_samples_training_problems_in_chunks_and_writes_what_sft_reads(model, tokenizer, context, tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "CHUNK", 3)
    save_checkpoint(model, tokenizer, tmp_path / "model")
    run_sample(stage(**{"from": str(tmp_path / "model"), "keep": "all"}), context)
    rows = [json.loads(line) for line in (context.directory / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["index"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(row["prompt"] == TASK.problem("train", context.seed, row["index"]).prompt for row in rows)
    assert len(read_examples(context.directory, tokenizer, 256)) == 8


def test_nothing_kept_is_told_with_a_remedy(model, tokenizer, context, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "model")
    with pytest.raises(UserError, match="kept none of 8 samples"):
        run_sample(stage(**{"from": str(tmp_path / "model")}), context)
