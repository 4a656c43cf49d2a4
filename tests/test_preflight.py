"""A model or task that cannot be made is refused with its key before anything runs."""

import pytest

from spoutnik import preflight
from spoutnik.errors import UserError
from spoutnik.recipe import parse_recipe


def recipe(model=None, task=None):
    task = task or {"name": "countdown", "numbers": [2, 3]}
    corpus = {"kind": "corpus", "name": "corpus", "sources": [{"task": task}], "tokens": 1000, "vocab_size": 512}
    base = {"kind": "pretrain", "name": "base", "data": "corpus", "model": model or {"family": "deepseek_v3", "depth": 2}, "steps": 6}
    return parse_recipe({"name": "test", "stage": [corpus, base]}, "my.toml")


def check(tmp_path, **parts):
    chosen = recipe(**parts)
    preflight.check(chosen, chosen.stages, tmp_path, "my.toml")


def test_what_can_be_made_passes(tmp_path):
    check(tmp_path)
    check(tmp_path, model={"family": "llama", "depth": 2, "hidden_size": 96})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"model": {"family": "llama", "depth": 2, "hiden_size": 96}}, "my.toml: stage 'base': .*did you mean `hidden_size`"),
        ({"model": {"family": "llama", "depth": 2, "num_key_value_heads": 3}}, "my.toml: stage 'base': .*heads"),
        ({"model": {"family": "deepseek_v3", "depth": 400}}, "my.toml: stage 'base': it needs at least .* GiB"),
        ({"task": {"name": "countdwn"}}, "my.toml: stage 'corpus': .*countdwn"),
        ({"task": {"name": "countdown", "nombers": [2]}}, "my.toml: stage 'corpus': .*nombers"),
    ],
)
def test_what_cannot_is_refused_with_its_stage(tmp_path, parts, expected):
    with pytest.raises(UserError, match=expected):
        check(tmp_path, **parts)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_task_without_traces_is_refused_where_traces_are_wanted(tmp_path, wrapped):
    (tmp_path / "questions.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    bare = {"name": f"jsonl:{tmp_path / 'questions.jsonl'}", "belongs_to": "train"}
    task = {"name": "mixture", "parts": [{"name": "arithmetic"}, bare]} if wrapped else bare
    chosen = parse_recipe({"name": "test", "stage": [{"kind": "traces", "name": "cold", "task": task, "problems": 5}]}, "my.toml")
    with pytest.raises(UserError, match=r"my.toml: stage 'cold': .*has no worked traces"):
        preflight.check(chosen, chosen.stages, tmp_path, "my.toml")
    with pytest.raises(UserError, match=r"my.toml: stage 'corpus': .*has no worked traces"):
        check(tmp_path, task=task)


def test_a_text_to_evaluate_on_that_is_nowhere_is_refused_before_anything_runs(tmp_path):
    stages = [
        {"kind": "eval", "name": "eval", "models": [str(tmp_path)], "tasks": [{"name": "words", "problems": 1}], "max_new_tokens": 4,
         "texts": ["nowhere.txt"]}
    ]  # fmt: skip
    chosen = parse_recipe({"name": "test", "stage": stages}, "my.toml")
    with pytest.raises(UserError, match=r"my.toml: stage 'eval': .*'nowhere.txt'"):
        preflight.check(chosen, chosen.stages, tmp_path, "my.toml")


def test_a_model_of_671_billion_parameters_is_counted_without_being_made():
    v3 = {
        "family": "deepseek_v3",
        "depth": 61,
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "vocab_size": 129280,
    }
    v3 |= {
        "intermediate_size": 18432,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    v3 |= {"n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "moe_intermediate_size": 2048}
    v3 |= {"first_k_dense_replace": 3, "num_nextn_predict_layers": 0}
    chosen = recipe(model=v3)
    assert preflight.count_parameters(chosen, chosen.stages[1]) == pytest.approx(671.03e9, rel=1e-4)


def test_teachers_that_do_not_fit_are_refused_wherever_they_are_asked(tmp_path):
    task = {"name": "countdown", "numbers": [2]}
    corpus, small = (stage.model_dump(by_alias=True, exclude_unset=True) for stage in recipe().stages)
    huge = {**small, "name": "huge", "model": {"family": "deepseek_v3", "depth": 400}}
    learning = {"from": "base", "steps": 1, "learning_rate": 1e-4}
    own = {"prompts": 1, "max_new_tokens": 9, "temperature": 1.0, "task": {"name": "mixture", "parts": [task, task]}}
    stages = [
        {"kind": "sample", "name": "answers", "from": "base", "task": task, "problems": 9, "max_new_tokens": 9},
        {"kind": "logits", "name": "stored", "from": "huge", "data": "answers"},
        {"kind": "distill", "name": "given", "mode": "logits", "teacher": "huge", "data": "answers", "batch_size": 1, **learning},
        {"kind": "distill", "name": "own", "mode": "on-policy", "teacher": ["base", "huge"], **own, **learning},
        {"kind": "distill", "name": "small", "mode": "on-policy", "teacher": ["base", "base"], **own, **learning},
    ]
    whole = parse_recipe({"name": "test", "stage": [corpus, small, huge, *stages]}, "my.toml")
    for name in ("stored", "given", "own", "small"):
        pending = [stage for stage in whole.stages if stage.name == name]
        if name == "small":
            preflight.check(whole, pending, tmp_path, "my.toml")
            continue
        with pytest.raises(UserError, match=f"my.toml: stage '{name}': it needs at least .* GiB"):
            preflight.check(whole, pending, tmp_path, "my.toml")
