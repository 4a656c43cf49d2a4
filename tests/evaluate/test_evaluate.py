"""Evaluation: held-out problems, the same for every model, and figures that say how sure they are."""

import json

import pytest

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.generator import Engine
from spoutnik.evaluate import evaluate
from spoutnik.evaluate.evaluate import answer, label, run_eval, summary
from spoutnik.evaluate.statistics import wilson
from spoutnik.recipe.schema import EvalStage, TaskSpec
from spoutnik.run.record import read
from spoutnik.tasks import make
from spoutnik.tasks.reward import Reward
from spoutnik.train.rollouts import Rollout

TASK = {"name": "countdown", "numbers": [2], "high": 9}
PROBLEM = make("countdown", numbers=[2], high=9).problem("held-out", 0, 0)


def stage(models, **changes):
    settings = {"tasks": [{**TASK, "problems": 3}], "max_new_tokens": 4}
    return EvalStage.model_validate({"name": "stage", "models": models, **settings, **changes})


def rollout(accuracy, supported=False, steps=0, right=0, fault=None, truncated=False):
    return Rollout(PROBLEM, [1], [2, 3], [-1.0] * 2, "", truncated, Reward(accuracy, 0.5, 1.0, fault), steps, right, supported)


def test_problems_are_held_out_and_the_same_for_every_seed_and_model(model, tokenizer):
    spec = stage(["x"]).tasks[0]
    first, second = (answer(Engine(model, tokenizer), spec, 1, 0.0, 3, seed=seed) for seed in (1, 2))
    assert [each.problem for each in first] == [each.problem for each in second]
    assert [each.problem.split for each in first] == ["held-out"] * 3
    assert [each.token_ids for each in first] == [each.token_ids for each in second], "greedy answers depend on no seed"


def test_figures_come_with_their_interval_and_say_whether_the_thinking_holds():
    found = summary([
        rollout(1.0, supported=True, steps=3, right=3), rollout(1.0, steps=1), rollout(0.0, supported=True, truncated=True),
        rollout(0.0, fault="timeout"),
    ])  # fmt: skip
    assert (found["n"], found["correct"], found["accuracy"]) == (4, 2, 0.5)
    assert (found["low"], found["high"]) == wilson(2, 4)
    assert (found["faithful_steps"], found["supported"]) == (0.75, 0.5)
    assert (found["truncated"], found["faulted"], found["format"], found["mean_length"]) == (0.25, 1, 0.5, 2.0)


def test_more_answers_to_the_same_problems_do_not_feign_more_certainty():
    found = summary([rollout(1.0)] * 6 + [rollout(0.0)] * 6, samples=3)
    assert (found["n"], found["accuracy"]) == (12, 0.5)
    assert (found["low"], found["high"]) == wilson(2, 4)


def test_what_cannot_be_said_is_left_open():
    found = summary([rollout(0.0)])
    assert found["faithful_steps"] is None
    assert found["supported"] is None


def test_options_tell_tasks_of_one_name_apart():
    assert label(TaskSpec.model_validate({"name": "countdown", "numbers": [2], "trace_options": {}})) == "countdown (numbers [2])"
    assert label(TaskSpec.model_validate({"name": "arithmetic"})) == "arithmetic"


def test_every_model_meets_every_task_and_a_stopped_evaluation_goes_on(model, tokenizer, context, tmp_path, monkeypatch):
    models = [str(tmp_path / name) for name in "ab"]
    for name in models:
        save_checkpoint(model, tokenizer, name)
    context.save_every_steps = 1
    calls, whole = [], answer

    def stops_at_the_third(*arguments, **named):
        calls.append(arguments[1].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    monkeypatch.setattr(evaluate, "answer", stops_at_the_third)
    settings = stage(models, tasks=[{**TASK, "problems": 2}, {"name": "arithmetic", "problems": 2}])
    with pytest.raises(KeyboardInterrupt):
        run_eval(settings, context)
    run_eval(settings, context)
    assert calls == ["countdown", "arithmetic", "countdown", "countdown", "arithmetic"]
    results = json.loads((context.directory / "eval.json").read_text(encoding="utf-8"))
    assert [(result["model"], result["task"].split()[0]) for result in results] == [
        (name, task) for name in models for task in ("countdown", "arithmetic")
    ]
    recorded = [event for event in read(context.record.path) if event["event"] == "eval"]
    assert [event["model"] for event in recorded] == [models[0]] * 2 + [models[1]] * 2
