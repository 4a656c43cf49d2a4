"""DPO on a tiny V3 model: pairs, the reference that is asked once, and a step."""

import json

import pytest
import torch

from spoutnik.errors import UserError
from spoutnik.recipe.schema import DPOStage, SampleStage
from spoutnik.tasks import make
from spoutnik.tasks.reward import Reward
from spoutnik.train import preference
from spoutnik.train.examples import read_pairs
from spoutnik.train.kept import kept
from spoutnik.train.optim import Optimizer
from spoutnik.train.preference import dpo_step, with_reference
from spoutnik.train.rollouts import Rollout
from spoutnik.train.state import TrainState

ROWS = [
    {
        "prompt": f"Make {n} from 1, 2.",
        "chosen": f"{n}\n</think>\n<answer>{n}</answer>",
        "rejected": f"no\n</think>\n<answer>{9 - n}</answer>",
    }
    for n in (1, 2, 3, 7)
]


def stage(**changes):
    settings = {"steps": 30, "batch_size": 2, "learning_rate": 0.01, "grad_clip": 1e6, "beta": 0.3, "warmup": 0.0}
    return DPOStage.model_validate({"name": "stage", "from": "x", "data": "d", **settings, **changes})


@pytest.fixture
def pairs(tmp_path, tokenizer):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return read_pairs(file, tokenizer, 256)


def whole(model, example):
    """Log-probability of an answer, one token after another."""
    with torch.no_grad():
        logprobs_TV = model(torch.tensor([example.ids]))[0].log_softmax(-1)
    return sum(float(logprobs_TV[place - 1, example.ids[place]]) for place in range(example.answer_start, len(example.ids)))


def test_the_reference_is_the_untrained_models_log_probability_of_whole_answers(model, pairs, context):
    found = with_reference(model, pairs, stage(), context)
    for pair in found:
        assert pair.reference == pytest.approx((whole(model, pair.chosen), whole(model, pair.rejected)), rel=1e-5)


def test_the_reference_is_asked_once_and_again_only_of_other_pairs(model, pairs, context, monkeypatch):
    asked, inner = [], preference._reference_logprobs
    monkeypatch.setattr(preference, "_reference_logprobs", lambda *arguments: asked.append(1) or inner(*arguments))
    first = with_reference(model, pairs, stage(), context)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)  # as when a run that was stopped goes on
    assert with_reference(model, pairs, stage(), context) == first
    assert len(asked) == 1
    with_reference(model, pairs[:3], stage(), context)
    assert len(asked) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_step_is_undecided_and_soon_every_pair_is_told_apart(model, pairs, context, dtype):
    settings = stage(dtype=dtype)
    known = with_reference(model, pairs, settings, context)
    state = TrainState(model, Optimizer(model, 0.01, 0.0))
    steps = [dpo_step(state, settings, known, context) for _ in range(20)]
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-4 if dtype == "float32" else 0.05)
    assert steps[-1]["loss"] < 0.2
    assert steps[-1]["preferred"] == 1.0
    assert steps[-1]["margin"] == pytest.approx(steps[-1]["chosen_gain"] - steps[-1]["rejected_gain"], rel=1e-4)


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a", "chosen": "b"}',
        '{"prompt": "a", "chosen": "b", "rejected": 3}',
        "[1]",
        "{",
        '{"prompt":"a","chosen":"b","rejected":"b"}',
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, tokenizer, line):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n" + line, encoding="utf-8")
    with pytest.raises(UserError, match="line 2 is not a pair"):
        read_pairs(file, tokenizer, 256)


TASK = make("countdown", numbers=[2], high=9)


def rollout(text, accuracy, form=1.0, fault=None):
    return Rollout(TASK.problem("train", 0, 0), [1], [2], [-1.0], text, False, Reward(accuracy, form, 1.0, fault), 0, 0, False)


def sampled(rollouts, keep):
    settings = {"problems": 4, "max_new_tokens": 5, "samples_per_problem": 4, "keep": keep}
    sample = SampleStage.model_validate({"name": "s", "from": "x", "task": {"name": "countdown"}, **settings})
    return [(row["chosen"], row["rejected"]) for row in kept(rollouts, sample)]


def test_rollouts_make_a_pair_of_a_right_answer_and_a_wrong_one():
    right, untidy, wrong, worse = rollout("r", 1.0), rollout("u", 1.0, 0.0), rollout("w", 0.0), rollout("x", 0.0, 0.0)
    assert sampled([untidy, wrong, right, worse], "pairs") == [("r", "x")]
    assert sampled([right, untidy], "pairs") == []
    assert sampled([right, untidy], "any-pairs") == [("r", "u")]
    assert sampled([wrong, rollout("v", 0.0)], "any-pairs") == [("w", "v")]
    assert sampled([right, right], "any-pairs") == []
    assert sampled([right, rollout("f", 0.0, fault="timeout")], "pairs") == [], "no verdict is no wrong answer"
    assert sampled([rollout("f", 0.0, fault="timeout")] * 2, "pairs") == []
