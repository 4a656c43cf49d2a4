"""The eval stage: held-out problems, the same for every model here and over the network, and nothing made or paid twice."""

import json

import pytest
from scripted import scripted_model

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.evaluate.evaluate import event_of, run_eval
from spoutnik.evaluate.figures import Evaluation
from spoutnik.evaluate.local import answer_here
from spoutnik.evaluate.posed import label, pose
from spoutnik.recipe import EvalStage, TaskSpec
from spoutnik.recipe.tables import Price
from spoutnik.run import interrupt
from spoutnik.run.record import read
from spoutnik.tasks import make
from spoutnik.teacher.base import Sampling
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.rollouts import sample_rollouts

TASK = {"name": "countdown", "numbers": [2], "high": 9}


def stage(models, **changes):
    settings = {"tasks": [{**TASK, "problems": 3}], "max_new_tokens": 4}
    return EvalStage.model_validate({"name": "stage", "models": models, **settings, **changes})


@pytest.fixture
def seven(tmp_path):
    """A model here that thinks and then says 7, to whatever it is asked; and six questions, of which half have that answer."""
    tokenizer = train_bpe(["one 7<answer> </answer> "] * 20, vocab_size=340)
    save_checkpoint(scripted_model(tokenizer, "one</think><answer>7</answer>"), tokenizer, tmp_path / "seven")
    rows = [{"question": f"question {number}", "answer": "7" if number % 2 else "8"} for number in range(6)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "seven"), {"name": f"jsonl:{tmp_path / 'questions.jsonl'}", "belongs_to": "held-out", "problems": 6}


def evaluation(context):
    return Evaluation.model_validate_json((context.directory / "evaluation.json").read_text(encoding="utf-8"))


def test_problems_are_held_out_and_the_same_for_every_run():
    spec = stage(["x"]).tasks[0]
    problems = pose(spec).problems
    assert problems == pose(spec).problems
    assert [problem.split for problem in problems] == ["held-out"] * 3
    with pytest.raises(UserError, match="set `problems`"):
        pose(TaskSpec.model_validate(TASK))


def test_an_answer_is_what_training_samples_whatever_is_asked_beside_it(model, tokenizer):
    task, problems = make("countdown", numbers=[2], high=9), pose(stage(["x"]).tasks[0]).problems
    rollouts = sample_rollouts(Engine(model, tokenizer), task, problems, 2, 1.0, 8, seed=3)
    places = [(2, 1), (0, 0), (1, 1)]
    found = {one.place: one for one in answer_here(Engine(model, tokenizer), task, problems, places, Sampling(8, 1.0), 3, Price())}
    assert sorted(found) == sorted(places)
    for (number, sample), answer in found.items():
        rollout = rollouts[2 * number + sample]
        assert (answer.text, answer.tokens, answer.correct) == (rollout.text, rollout.length, bool(rollout.reward.accuracy))
        assert answer.prompt == problems[number].prompt


def test_options_tell_tasks_of_one_name_apart():
    assert label(TaskSpec.model_validate({"name": "countdown", "numbers": [2], "trace_options": {}})) == "countdown (numbers [2])"
    assert label(TaskSpec.model_validate({"name": "arithmetic"})) == "arithmetic"


def test_a_stopped_evaluation_goes_on_with_what_is_missing(model, tokenizer, context, tmp_path, monkeypatch):
    models = [str(tmp_path / name) for name in "ab"]
    for name in models:
        save_checkpoint(model, tokenizer, name)
    settings = stage(models, tasks=[{**TASK, "problems": 2}, {"name": "arithmetic", "problems": 2}])
    lines = lambda: [line for path in sorted(context.directory.glob("answers/*")) for line in path.read_text().splitlines()]  # noqa: E731
    monkeypatch.setattr(interrupt, "asked", lambda: len(lines()) >= 3)
    with pytest.raises(KeyboardInterrupt):
        run_eval(settings, context)
    before = lines()
    assert 3 <= len(before) < 8
    monkeypatch.undo()
    run_eval(settings, context)
    assert len(lines()) == 8
    assert set(before) <= set(lines())
    whole = evaluation(context)
    assert [(result.model, result.task.split()[0]) for result in whole.results] == [
        (name, task) for task in ("countdown", "arithmetic") for name in models
    ]
    events = read(context.record.path)
    assert [event["model"] for event in events if event["event"] == "eval"] == models * 2
    assert [(event["a"], event["b"]) for event in events if event["event"] == "pair"] == [tuple(models)] * 2


def test_models_here_and_over_the_network_stand_side_by_side(server, seven, remote, context):
    name, task = seven
    remote("clever", price={"prompt": 1.0, "completion": 2.0, "currency": "CHF"})
    server.answer = lambda messages: (f"<answer>{7 if int(messages[-1]['content'].split()[1]) % 2 else 8}</answer>", "hm")
    run_eval(stage([name, "clever"], tasks=[task], max_new_tokens=20), context)
    whole = evaluation(context)
    local, clever = whole.results
    assert (local.pass_at_1.value, clever.pass_at_1.value) == (0.5, 1.0)
    assert (clever.cost, clever.currency, clever.tokens_per_solved, clever.energy_kwh) == (pytest.approx(6 * 20e-6), "CHF", 5.0, None)
    assert (local.cost, local.energy_kwh > 0, local.format, local.tokens_per_answer) == (None, True, 1.0, 6.0)
    [pair] = whole.pairs
    assert (pair.a, pair.b, pair.better, pair.worse, pair.p) == (name, "clever", 0, 3, 0.25)
    assert [(model.kind, model.dialect) for model in whole.models] == [("local", None), ("remote", "openai")]
    [body] = [body for _, _, body in server.seen if body["messages"][-1]["content"] == "question 0"]
    assert "between <answer> and </answer>" in body["messages"][0]["content"]


def test_nothing_is_asked_or_generated_twice(server, seven, remote, context):
    name, task = seven
    remote("clever")
    run_eval(stage([name, "clever"], tasks=[task], max_new_tokens=20), context)
    assert len(server.seen) == 6
    kept = {path: path.read_bytes() for path in context.directory.glob("answers/*")}
    run_eval(stage([name, "clever"], tasks=[task], max_new_tokens=20), context)
    assert {path: path.read_bytes() for path in context.directory.glob("answers/*")} == kept
    for path in kept:
        path.unlink()
    run_eval(stage(["clever"], tasks=[task], max_new_tokens=20), context)
    assert len(server.seen) == 6, "the ledger of requests knows them without the stage's own files, too"
    assert evaluation(context).results[0].cost == pytest.approx(6 * 15e-6), "what the answers cost, though they cost nothing now"


def test_half_of_the_answers_that_fail_are_told_counted_as_wrong_and_asked_again(server, seven, remote, context):
    remote("clever", concurrency=1)
    server.answer = lambda messages: ("<answer>7</answer>", "")
    server.faults = [400, None, 400, None, 400, None]
    run_eval(stage(["clever"], tasks=[seven[1]], max_new_tokens=20), context)
    [result] = evaluation(context).results
    assert (result.failed, result.n, result.tokens_per_answer) == (3, 6, 5.0)
    assert result.pass_at_1.value <= 0.5
    run_eval(stage(["clever"], tasks=[seven[1]], max_new_tokens=20), context)
    assert evaluation(context).results[0].failed == 3, "what a server refused for good it is not asked again"


def test_a_server_that_is_down_is_told_before_this_machine_has_worked(server, seven, remote, context, monkeypatch):
    monkeypatch.setattr("spoutnik.teacher.remote.ATTEMPTS", 1)
    remote("gone", base_url="http://127.0.0.1:9")
    with pytest.raises(UserError, match="Teacher 'gone' gave no answer"):
        run_eval(stage([seven[0], "gone"], tasks=[{**seven[1], "problems": 12}], max_new_tokens=20), context)
    assert not list(context.directory.glob("answers/seven*"))


def test_answers_that_were_cut_off_or_refused_are_wrong_and_counted(server, seven, remote, context):
    remote("clever")
    server.answer, server.finish = lambda messages: ("<answer>7</answer>", ""), "length"
    run_eval(stage(["clever"], tasks=[seven[1]], max_new_tokens=20), context)
    [result] = evaluation(context).results
    assert (result.truncated, result.refused, result.format) == (1.0, 0, 0.0)


def test_the_record_has_pass_and_cons_by_name(seven, context):
    run_eval(stage([seven[0]], tasks=[seven[1]], max_new_tokens=20, samples_per_problem=2, temperature=0.01), context)
    [event] = [event for event in read(context.record.path) if event["event"] == "eval"]
    assert (event["n"], event["k"], event["accuracy"], event["pass@2"], event["cons@2"]) == (6, 2, 0.5, 0.5, 0.5)
    assert event_of(evaluation(context).results[0]).items() <= event.items()


def test_weights_that_changed_are_another_model(model, tokenizer, context, tmp_path):
    path = str(tmp_path / "a")
    for times in (1, 2):
        save_checkpoint(model, tokenizer, path)
        run_eval(stage([path]), context)
        assert len(list(context.directory.glob("answers/*"))) == times
