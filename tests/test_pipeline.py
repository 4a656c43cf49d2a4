"""A recipe is carried in order; what is finished is skipped, what was changed is refused, what was stopped goes on."""

import json
import os
import signal
from dataclasses import dataclass

import pytest

from spoutnik import pipeline, preflight
from spoutnik.errors import UserError
from spoutnik.pipeline import definition, run_recipe
from spoutnik.recipe import parse_recipe
from spoutnik.run.record import read
from spoutnik.run.stage import run_stage

RECIPE = {
    "name": "test",
    "seed": 3,
    "stage": [
        {"kind": "corpus", "name": "corpus", "sources": [{"text": "builtin:english"}], "tokens": 1000, "vocab_size": 512},
        {"kind": "pretrain", "name": "base", "data": "corpus", "model": {"family": "llama", "depth": 2}, "steps": 6, "minutes": 1.0},
        {"kind": "pretrain", "name": "other", "data": "corpus", "model": {"family": "llama", "depth": 2}, "steps": 4},
        {"kind": "report", "name": "report"},
    ],
}


@dataclass
class Count:
    step: int = 0


class Work:
    """Stage functions that do little, but through the same run_stage as the real ones; `stop_at` asks for a stop at a step of `base`."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def functions(self):
        return {"corpus": self.corpus, "pretrain": self.pretrain}

    def corpus(self, stage, context):
        self.calls.append(stage.name)
        (context.directory / "tokens").write_text(str(context.seed))

    def pretrain(self, stage, context):
        self.calls.append(stage.name)
        assert (context.resolve(stage.data) / "tokens").exists()

        def advance(state):
            state.step += 1
            context.ledger.add(tokens=10)
            if stage.name == "base" and state.step == self.stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return {"loss": 1 / state.step}

        def save(state, folder):
            (folder / "step").write_text(str(state.step))

        def load(folder):
            return Count(int((folder / "step").read_text()))

        run_stage(context, stage.steps, Count, advance, save, load)
        context.checkpoint_dir.mkdir(parents=True, exist_ok=True)


@pytest.fixture(autouse=True)
def no_models(monkeypatch):
    """The size of a model needs torch; these tests are about order."""
    monkeypatch.setattr(preflight, "count_parameters", lambda recipe, stage: 1000)


def run(out, work, content=RECIPE, **options):
    return run_recipe(parse_recipe(content, "my.toml"), out, "my.toml", functions=work.functions(), **options)


def with_stage(name, **changes):
    return {**RECIPE, "stage": [{**stage, **changes} if stage["name"] == name else stage for stage in RECIPE["stage"]]}


def test_stages_run_in_order_once_and_the_report_is_always_made(tmp_path):
    first, second = Work(), Work()
    run(tmp_path, first)
    assert first.calls == ["corpus", "base", "other"]
    assert (tmp_path / "report.html").exists()
    (tmp_path / "report.html").unlink()
    run(tmp_path, second)
    assert second.calls == []
    assert (tmp_path / "report.html").exists()


def test_ctrl_c_stops_between_steps_and_the_same_call_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Work(stop_at=3), save_every_s=1e9)
    again = Work()
    directory = run(tmp_path, again)
    assert again.calls == ["base", "other"]
    steps = [event["step"] for event in read(directory.record_path) if event["event"] == "step" and event["stage"] == "base"]
    assert steps == [1, 2, 3, 4, 5, 6]
    ends = [event for event in read(directory.record_path) if event["event"] == "stage_end"]
    assert [event["stage"] for event in ends] == ["corpus", "base", "other"]
    assert (ends[1]["costs"]["tokens"], ends[1]["costs"]["resumptions"]) == (60, 1)


def test_a_stage_that_fails_is_not_done_and_is_tried_again(tmp_path):
    def fails(stage, context):
        raise UserError("the corpus is empty.")

    with pytest.raises(UserError):
        run_recipe(parse_recipe(RECIPE, "x"), tmp_path, functions={**Work().functions(), "corpus": fails})
    work = Work()
    run(tmp_path, work)
    assert work.calls == ["corpus", "base", "other"]


@pytest.mark.parametrize("changed", [with_stage("base", steps=7), {**RECIPE, "seed": 4}, with_stage("corpus", tokens=2000)])
def test_a_changed_recipe_is_refused_with_what_changed(tmp_path, changed):
    run(tmp_path, Work())
    with pytest.raises(UserError, match=r"was made with .* give another --out"):
        run(tmp_path, Work(), changed)


def test_what_does_not_change_the_result_may_change(tmp_path):
    run(tmp_path, Work())
    run(tmp_path, Work(), with_stage("base", minutes=9.0))
    run(tmp_path, Work(), {**RECIPE, "price": {"kwh": 0.5}})


def test_a_definition_holds_all_that_the_stage_builds_on():
    before, after = (parse_recipe(content, "x") for content in (RECIPE, with_stage("corpus", tokens=2000)))
    assert definition(before, before.stages[1]) != definition(after, after.stages[1])
    assert json.loads(json.dumps(definition(before, before.stages[1]))) == definition(before, before.stages[1])


def test_one_stage_brings_along_only_what_it_builds_on(tmp_path):
    work = Work()
    run(tmp_path, work, only="other")
    assert work.calls == ["corpus", "other"]
    with pytest.raises(UserError, match="has no stage 'nothing'; it has: corpus, base"):
        run(tmp_path, work, only="nothing")


def test_more_memory_than_there_is_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "count_parameters", lambda recipe, stage: 10**15)
    work = Work()
    with pytest.raises(UserError, match=r"my.toml: stage 'base': it needs at least .* GiB"):
        run(tmp_path, work)
    assert work.calls == []


def test_more_disk_than_there_is_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.machine, "disk_free", lambda path: 10_000)
    work = Work()
    with pytest.raises(UserError, match="make room or give another --out"):
        run(tmp_path, work)
    assert work.calls == []


def test_every_kind_of_stage_has_its_function():
    from spoutnik.recipe.loading import _kinds

    assert set(pipeline.STAGE_FUNCTIONS) | {"report"} == set(_kinds())
