"""What a recipe's stages would compute, what they are predicted to take, and how that is held against a run."""

import json

import pytest

from spoutnik.device import Memory
from spoutnik.errors import UserError
from spoutnik.model.flops import training_flops
from spoutnik.pipeline import run_recipe
from spoutnik.plan.laptop import Shares, fitted, terms
from spoutnik.plan.probe import Probe
from spoutnik.plan.speech import speech
from spoutnik.plan.work import Answers, Readings, Updates, Writing
from spoutnik.recipe import parse_recipe
from spoutnik.rehearsal.against import compare
from spoutnik.rehearsal.forecast import forecast
from spoutnik.rehearsal.work import Workload, about_tokens
from spoutnik.run.record import read

ENGLISH = speech("en")
PROBE = Probe("here", "2026-01-01", 2e11, 1e12, 1e11, 1e10, 0.02, 1e9, 2e9)
TASK = {"name": "countdown", "numbers": [2], "high": 9}
CORPUS = {"kind": "corpus", "name": "corpus", "sources": [{"task": TASK}], "tokens": 4000, "vocab_size": 300}
BASE = {"kind": "pretrain", "name": "base", "data": "corpus", "model": {"family": "deepseek_v3", "depth": 2}, "steps": 3}
BASE |= {"batch_tokens": 256, "sequence_length": 64}
RL = {"kind": "rl", "name": "rl", "from": "base", "task": TASK, "prompts": 4, "group": 4, "max_new_tokens": 12, "steps": 2}
RL |= {"learning_rate": 1e-2}
SAMPLES = {"kind": "sample", "name": "samples", "from": "rl", "task": TASK, "problems": 6, "max_new_tokens": 12, "samples_per_problem": 2}
TRACES = {"kind": "traces", "name": "traces", "task": TASK, "problems": 4}
LEARN = {"from": "base", "steps": 2, "batch_size": 4, "learning_rate": 1e-2}
SFT = {**LEARN, "kind": "sft", "name": "sft", "data": "samples"}
OTHERS = [
    TRACES,
    {**SAMPLES, "name": "pairs", "keep": "pairs"},
    {**LEARN, "kind": "dpo", "name": "dpo", "data": "pairs"},
    {"kind": "logits", "name": "stored", "from": "rl", "data": "samples"},
    {**LEARN, "kind": "distill", "name": "logits", "mode": "logits", "data": "stored"},
    {"kind": "distill", "name": "on-policy", "mode": "on-policy", "from": "base", "teacher": "rl", "task": TASK, "prompts": 4,
     "max_new_tokens": 12, "temperature": 1.0, "steps": 2, "learning_rate": 1e-2},
    {"kind": "eval", "name": "eval", "models": ["base", "rl"], "tasks": [{**TASK, "problems": 4}], "max_new_tokens": 8},
    {"kind": "report", "name": "report"},
]  # fmt: skip
SERVER = {"name": "server", "dialect": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "terms": "allowed"}
SERVER |= {"price": {"prompt": 0.0, "completion": 0.0}, "max_cost": 1.0}


def recipe(*stages, **more):
    return parse_recipe({"name": "test", "stage": list(stages), **more}, "test.toml")


def work_of(*stages):
    chosen = recipe(*stages)
    return Workload(chosen).of(chosen.stages[-1])


def test_every_kind_of_stage_has_its_work():
    chosen = recipe(CORPUS, BASE, RL, SAMPLES, SFT, *OTHERS)
    found = {stage.name: Workload(chosen).of(stage) for stage in chosen.stages}
    kinds = {name: tuple(type(part) for part in work.parts) for name, work in found.items()}
    assert kinds["corpus"] == kinds["traces"] == (Writing,)
    assert kinds["base"] == kinds["sft"] == kinds["logits"] == (Updates,)
    assert kinds["dpo"] == (Updates, Readings)
    assert kinds["rl"][:2] == kinds["on-policy"] == (Answers, Updates)
    assert kinds["samples"] == (Answers,)
    assert kinds["eval"] == (Answers, Answers)
    assert kinds["stored"] == (Readings,)
    assert not any(work.unknown for work in found.values())
    assert [found[name].models for name in ("base", "rl", "on-policy", "eval")] == [0, 1, 2, 2]


def test_pretraining_computes_what_its_ledger_counts(tmp_path):
    chosen = recipe(CORPUS, BASE)
    run_recipe(chosen, tmp_path)
    counted = next(
        event["costs"]["flops"] for event in read(tmp_path / "record.jsonl") if event["event"] == "stage_end" and event["stage"] == "base"
    )
    part = Workload(chosen).of(chosen.stages[1]).parts[0]
    tokens = part.steps * part.rows * part.length.fixed
    assert training_flops(part.config, tokens, part.length.fixed) == pytest.approx(counted)
    found = terms(Workload(chosen).of(chosen.stages[1]), PROBE, Shares(0.5, 1.0))
    assert found["update products float32"] == pytest.approx(counted / PROBE.gemm_small)


def test_reinforcement_learning_answers_once_a_step_and_updates_for_each_mini_batch():
    answers, updates, *readings = work_of(CORPUS, BASE, {**RL, "minibatches": 2}).parts
    assert (answers.rounds, answers.count, answers.length.longest) == (2, 16, 12)
    assert (updates.steps, updates.rows, updates.chosen) == (4, 8, True)
    assert sum(reading.rows for reading in readings) == pytest.approx(2 * 16 * (1 + 1 / 4 + 1 / 2)), "reference, check, second mini-batch"


def test_examples_are_as_long_as_what_they_are_made_of():
    sampled = work_of(CORPUS, BASE, RL, SAMPLES, SFT).parts[0].length
    assert sampled.longest == 12
    traced = work_of(CORPUS, BASE, TRACES, {**SFT, "data": "traces"}).parts[0].length
    assert traced.longest == 0
    assert traced.fixed > sampled.fixed


def test_who_was_taught_by_traces_answers_as_long_as_they_are_however_it_came_by_them():
    cold = {**LEARN, "kind": "sft", "name": "cold", "data": "traces"}
    samples = {**SAMPLES, "max_new_tokens": 96}
    taught = [CORPUS, BASE, TRACES, cold, {**RL, "from": "cold", "max_new_tokens": 96}, samples, SFT]
    taught += [{**samples, "name": "again", "from": "sft"}]
    traced = work_of(CORPUS, BASE, TRACES, cold).parts[0].length.fixed - work_of(CORPUS, BASE, RL).parts[0].length.fixed
    for stages in (taught[:5], taught[:6], taught[:7], taught):
        assert work_of(*stages).share == pytest.approx(traced / 96), stages[-1]["name"]
    assert work_of(CORPUS, BASE, RL).share is None
    assert work_of(*taught[:4]).share is None, "its examples are known"


def test_examples_of_a_file_are_looked_at(tmp_path):
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"prompt": "word " * 300, "completion": "yes"}) + "\n")
    length = work_of(CORPUS, BASE, {**SFT, "data": str(file)}).parts[0].length
    assert 300 < length.fixed < 340


def test_text_is_counted_in_signs_digits_and_pieces_of_words():
    assert about_tokens("Make 13 from 10, 20!") == 10
    assert about_tokens("extraordinarily") == 3


def test_who_answers_elsewhere_has_no_known_time():
    chosen = recipe({**SAMPLES, "from": "server"}, teacher=[SERVER])
    assert str(Workload(chosen).of(chosen.stages[0]).unknown) == "how fast server answers is not known"


def test_a_forecast_names_its_range_its_fullest_stage_and_every_stage():
    chosen = recipe(CORPUS, BASE, RL, SAMPLES, SFT, *OTHERS)
    found = forecast(chosen, chosen.stages, PROBE, fitted())
    assert found.sentence(ENGLISH).startswith("test takes about ")
    assert "GiB (" in found.sentence(ENGLISH)
    assert set(found.expected) == {stage.name for stage in chosen.stages if stage.kind != "report"}
    assert all(stage["p10"] <= stage["p50"] <= stage["p90"] for stage in found.expected.values())
    assert found.total.p50 == pytest.approx(sum(stage["p50"] for stage in found.expected.values()), rel=0.2)


def test_what_does_not_fit_is_said_instead_of_a_time(monkeypatch):
    monkeypatch.setattr("spoutnik.rehearsal.forecast.memory_of", lambda device: Memory(10**6, 10**6, "this machine"))
    chosen = recipe(CORPUS, BASE)
    assert forecast(chosen, chosen.stages, PROBE, fitted()).sentence(ENGLISH).startswith("test cannot run here: stage 'base': it needs ")


def test_a_run_is_held_against_its_prediction_stage_by_stage(tmp_path):
    chosen = recipe(CORPUS, BASE, RL)
    run_recipe(chosen, tmp_path, expected=forecast(chosen, chosen.stages, PROBE, fitted(), memory=False).expected)
    events = read(tmp_path / "record.jsonl")
    assert {event["stage"] for event in events if event.get("predicted")} == {"corpus", "base", "rl"}
    found = compare(chosen, tmp_path, PROBE, fitted())
    assert [stage.taken.name for stage in found.stages] == ["corpus", "base", "rl"]
    wall = sum(event["costs"]["wall_s"] for event in events if event["event"] == "stage_end")
    assert found.taken == pytest.approx(wall)
    shown = found.to_json()
    assert shown["error"] == pytest.approx(shown["predicted"]["p50"] / wall - 1)
    assert all(stage["memory_taken"] > 0 for stage in shown["stages"])
    assert len(found.rows(ENGLISH)) == 4


def test_what_is_no_run_of_the_recipe_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no record\.jsonl"):
        compare(recipe(CORPUS, BASE), tmp_path, PROBE, fitted())
    (tmp_path / "record.jsonl").write_text("")
    with pytest.raises(UserError, match="finished no stage of test"):
        compare(recipe(CORPUS, BASE), tmp_path, PROBE, fitted())
