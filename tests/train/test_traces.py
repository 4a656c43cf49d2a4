"""A task's own worked traces become data of the form that rejection sampling writes, right ones only unless all are asked for."""

import json

import pytest

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import parse_recipe, smoke
from spoutnik.recipe.schema import SampleStage, TracesStage
from spoutnik.run import interrupt
from spoutnik.tasks import make
from spoutnik.train import traces
from spoutnik.train.examples import read_examples
from spoutnik.train.rejection import run_sample
from spoutnik.train.traces import run_traces

CARELESS = {"name": "countdown", "numbers": [2], "high": 9, "trace_options": {"efforts": [1], "careless": 0.5}}
MIXED = {"name": "mixture", "parts": [{"name": "arithmetic", "terms": [2]}, {"name": "words"}]}


def stage(task, **changes):
    return TracesStage.model_validate({"name": "stage", "task": task, "problems": 30, **changes})


def rows_of(context):
    return [json.loads(line) for line in (context.directory / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def test_traces_are_rows_like_those_of_a_sample_stage(model, tokenizer, context, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "model")
    countdown = {"name": "countdown", "numbers": [2], "high": 9}
    sampling = {"name": "stage", "from": str(tmp_path / "model"), "task": countdown, "problems": 1, "max_new_tokens": 4, "keep": "all"}
    run_sample(SampleStage.model_validate(sampling), context)
    (sampled,) = rows_of(context)
    run_traces(stage(MIXED), context)
    rows = rows_of(context)
    assert {tuple(row) for row in rows} == {tuple(sampled)}
    assert [row["index"] for row in rows] == list(range(30))
    assert {row["task"] for row in rows} == {"arithmetic", "words"}
    task = make("mixture", parts=MIXED["parts"])
    for row in rows:
        assert row["prompt"] == task.problem("train", context.seed, row["index"]).prompt
        assert row["correct"]
        assert row["steps"] == row["right_steps"] > 0
    assert len(read_examples(context.directory, tokenizer, 512)) == 30


def test_wrong_traces_are_left_out_unless_all_are_wanted(context):
    run_traces(stage(CARELESS), context)
    kept = rows_of(context)
    assert 0 < len(kept) < 30
    assert all(row["correct"] for row in kept)
    run_traces(stage(CARELESS, keep="all"), context)
    everything = rows_of(context)
    assert len(everything) == 30
    assert [row for row in everything if row["correct"]] == kept


def test_where_every_trace_is_wrong_that_is_said(context):
    hopeless = {"name": "countdown", "numbers": [6], "trace_options": {"efforts": [1]}}
    with pytest.raises(UserError, match=r"kept none of 3 traces, since all are wrong; .*keep = 'all'"):
        run_traces(stage(hopeless, problems=3), context)


def test_a_stage_that_was_stopped_starts_again_and_writes_the_same(context, monkeypatch):
    run_traces(stage(MIXED), context)
    whole = (context.directory / "samples.jsonl").read_bytes()
    (context.directory / "samples.jsonl").unlink()
    monkeypatch.setattr(traces, "CHUNK", 10)
    looks = iter([None, KeyboardInterrupt()])

    def stop_at_the_second_look():
        if (stop := next(looks)) is not None:
            raise stop

    monkeypatch.setattr(interrupt, "check", stop_at_the_second_look)
    with pytest.raises(KeyboardInterrupt):
        run_traces(stage(MIXED), context)
    assert not (context.directory / "samples.jsonl").exists(), "a file that is there is whole"
    monkeypatch.undo()
    run_traces(stage(MIXED), context)
    assert (context.directory / "samples.jsonl").read_bytes() == whole


def test_the_smoke_form_of_a_cold_start_runs_to_its_end_though_every_trace_is_wrong(model, tokenizer, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "model")
    hopeless = {"name": "countdown", "numbers": [2, 6], "trace_options": {"efforts": [1]}}
    sft = {"kind": "sft", "name": "cold-start", "from": str(tmp_path / "model"), "data": "traces", "steps": 500, "batch_size": 32}
    evaluation = {"kind": "eval", "name": "eval", "models": ["cold-start"], "tasks": [{**hopeless, "problems": 500}], "max_new_tokens": 900}
    stages = [
        {"kind": "traces", "name": "traces", "task": hopeless, "problems": 5000},
        {**sft, "learning_rate": 1e-3},
        {**evaluation, "texts": ["builtin:english"]},
        {"kind": "report", "name": "report"},
    ]
    recipe = smoke(parse_recipe({"name": "test", "stage": stages}, "my.toml"))
    directory = run_recipe(recipe, tmp_path / "run", "my.toml")
    samples = (directory.stage("traces") / "samples.jsonl").read_text(encoding="utf-8")
    assert len(samples.splitlines()) == 8
    assert "General text" in directory.report_path.read_text(encoding="utf-8")
