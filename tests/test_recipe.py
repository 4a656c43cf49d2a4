"""A recipe that cannot work is refused before anything runs, in one sentence with file, key and remedy."""

import contextlib
import copy
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.recipe import check_models, find_recipe, load_recipe, parse_recipe, recipe_folders, smoke

COUNTDOWN = {"name": "countdown", "numbers": [2, 3]}
CORPUS = {"kind": "corpus", "name": "corpus", "sources": [{"task": COUNTDOWN}], "tokens": 1000, "vocab_size": 512}
BASE = {"kind": "pretrain", "name": "base", "data": "corpus", "model": {"family": "deepseek_v3", "depth": 4}, "steps": 100}
ZERO = {"kind": "rl", "name": "zero", "from": "base", "task": COUNTDOWN, "prompts": 8, "group": 8, "max_new_tokens": 64, "steps": 9}
ZERO["learning_rate"] = 1e-4
SAMPLES = {"kind": "sample", "name": "samples", "from": "zero", "task": COUNTDOWN, "problems": 100, "max_new_tokens": 64}
SFT = {"kind": "sft", "name": "sft", "from": "base", "data": "samples", "steps": 10, "batch_size": 8, "learning_rate": 1e-4}
TRACES = {"kind": "traces", "name": "traces", "task": COUNTDOWN, "problems": 100}
STARTED = {**SFT, "name": "started", "data": "traces"}
PAIRS = {**SAMPLES, "name": "pairs", "keep": "pairs", "samples_per_problem": 4}
PREFERRED = {**SFT, "kind": "dpo", "name": "preferred", "data": "pairs"}
TAUGHT = {**SFT, "kind": "distill", "name": "taught", "from": "smollm2", "mode": "samples"}
STORED = {"kind": "logits", "name": "stored", "from": "zero", "data": "samples"}
INFORMED = {**SFT, "kind": "distill", "name": "informed", "data": "stored", "mode": "logits"}
GUIDED = {"kind": "distill", "name": "guided", "from": "base", "mode": "on-policy", "teacher": ["zero", "sft"], "steps": 9, "prompts": 4}
GUIDED |= {
    "task": {"name": "mixture", "parts": [COUNTDOWN, {"name": "words"}]},
    "max_new_tokens": 9,
    "temperature": 1.0,
    "learning_rate": 1e-4,
}
EVAL = {"kind": "eval", "name": "eval", "models": ["base", "zero"], "tasks": [{**COUNTDOWN, "problems": 50}], "max_new_tokens": 64}
WHOLE = {
    "name": "test",
    "seed": 3,
    "stage": [
        CORPUS,
        BASE,
        ZERO,
        SAMPLES,
        SFT,
        TAUGHT,
        EVAL,
        PAIRS,
        PREFERRED,
        TRACES,
        STARTED,
        STORED,
        INFORMED,
        GUIDED,
        {"kind": "report", "name": "report"},
    ],
}


def changed(stage, **changes):
    content = copy.deepcopy(WHOLE)
    table = next(table for table in content["stage"] if table["name"] == stage)
    for key, value in changes.items():
        table.pop(key, None) if value is None else table.__setitem__(key, value)
    return content


def fault(content):
    with pytest.raises(UserError) as caught:
        parse_recipe(content, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml")
    assert "\n" not in message
    return message


def test_a_whole_recipe_is_taken_with_its_defaults():
    recipe = parse_recipe(WHOLE, "my.toml")
    assert [stage.kind for stage in recipe.stages] == [
        "corpus",
        "pretrain",
        "rl",
        "sample",
        "sft",
        "distill",
        "eval",
        "sample",
        "dpo",
        "traces",
        "sft",
        "logits",
        "distill",
        "distill",
        "report",
    ]
    base, zero, evaluation = recipe.stages[1], recipe.stages[2], recipe.stages[6]
    assert (base.batch_tokens, base.schedule, base.balance.bias_update_rate, base.mtp_weight) == (8192, "wsd", 0.001, 0.3)
    assert (zero.from_, zero.clip, zero.kl_coef, zero.reference_every, zero.task.options) == ("base", 10.0, 0.001, 400, {"numbers": [2, 3]})
    assert evaluation.tasks[0].split == "held-out"
    assert zero.task.split == "train"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("grpo", {"clip": 10.0, "clip_high": 10.0, "kl_coef": 0.001, "sampling_rounds": 1, "overlong_cache": 0, "off_policy_delta": None}),
        ("dr_grpo", {"clip": 0.2, "clip_high": 0.2, "kl_coef": 0.0}),
        ("dapo", {"clip": 0.2, "clip_high": 0.28, "kl_coef": 0.0, "sampling_rounds": 4, "overlong_cache": 12}),
        ("gspo", {"clip": 3e-4, "clip_high": 4e-4, "kl_coef": 0.0}),
        ("v32", {"clip": 10.0, "kl_coef": 0.001, "kl_estimate": "unbiased", "off_policy_delta": 0.5}),
    ],
)
def test_an_algorithm_brings_its_papers_values_and_the_recipe_overrides_them(algorithm, expected):
    zero = parse_recipe(changed("zero", algorithm=algorithm), "my.toml").stages[2]
    assert {key: getattr(zero, key) for key in expected} == expected
    other = parse_recipe(changed("zero", algorithm=algorithm, clip=0.1, kl_coef=0.5), "my.toml").stages[2]
    assert (other.clip, other.kl_coef) == (0.1, 0.5)
    assert smoke(parse_recipe(changed("zero", algorithm=algorithm, max_new_tokens=512), "my.toml")).stages[2].algorithm == algorithm


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        ("base", {"learning_rat": 0.1}, ["stage[1] 'base'", "learning_rat", "did you mean `learning_rate`?"]),
        ("base", {"balance": {"bias_rate": 0.1}}, ["balance.bias_rate", "bias_update_rate"]),
        ("corpus", {"sources": [{"tsk": "x", "text": "a"}]}, ["sources[0].tsk", "did you mean `task`?"]),
        ("base", {"steps": "100"}, ["stage[1] 'base': steps = '100'", "integer"]),
        ("base", {"steps": True}, ["steps = True", "integer"]),
        ("base", {"steps": 0}, ["steps = 0", "greater than 0"]),
        ("base", {"steps": None}, ["stage[1] 'base': steps is missing"]),
        ("base", {"kind": "pretrian"}, ["kind is 'pretrian'", "'pretrain'"]),
        ("base", {"kind": None}, ["kind is missing", "pretrain"]),
        ("base", {"name": "../base"}, ["name = '../base'"]),
        ("base", {"data": "corpora"}, ["data = 'corpora'", "expected a corpus stage", "corpus"]),
        ("base", {"data": "zero"}, ["data = 'zero'", "comes no earlier"]),
        ("base", {"batch_tokens": 1000}, ["batch_tokens (1000)", "multiple of sequence_length (256)"]),
        ("base", {"schedule": "cosine", "decay": 0.3}, ["`decay`", "leave it out"]),
        ("base", {"warmup": 0.5, "decay": 0.6}, ["exceed the whole run"]),
        ("base", {"model": {"family": "llama", "depth": 2}, "mtp_weight": 0.3}, ["`mtp_weight`", "deepseek_v3"]),
        ("zero", {"from": "corpus"}, ["from = 'corpus'", "makes no model"]),
        ("zero", {"from": "zero"}, ["from = 'zero'", "comes no earlier"]),
        ("zero", {"prompts": 9, "minibatches": 2}, ["prompts (9)", "minibatches (2)"]),
        ("zero", {"algorithm": "dapo", "average": "tokens"}, ["`average`", "leave it out"]),
        ("zero", {"algorithm": "ppo"}, ["algorithm = 'ppo'", "'grpo'"]),
        ("zero", {"curriculum": {"problems": 7}}, ["curriculum.problems", "prompts * sampling_rounds (8)"]),
        ("zero", {"monitor": {"max_disputd": 0.1}}, ["monitor.max_disputd", "did you mean `max_disputed`?"]),
        ("zero", {"overlong_cache": 65}, ["overlong_cache (65)", "max_new_tokens (64)"]),
        ("samples", {"temperature": 0.0, "samples_per_problem": 4}, ["same sample every time"]),
        ("sft", {"data": "zero"}, ["data = 'zero'", "expected a sample stage", "samples"]),
        ("pairs", {"samples_per_problem": 1}, ["keep = 'pairs'", "2 or more"]),
        ("preferred", {"data": "samples"}, ["data = 'samples' keeps no pairs", "keep = 'pairs'"]),
        ("preferred", {"data": "base"}, ["data = 'base'", "expected a sample stage or a .jsonl file"]),
        ("sft", {"data": "pairs"}, ["data = 'pairs'", "comes no earlier"]),
        ("sft", {"data": "nowhere.jsonl"}, ["nowhere.jsonl", "does not exist"]),
        ("sft", {"name": "base"}, ["name is taken"]),
        ("taught", {"mode": "on-policy"}, ["mode = 'on-policy' needs `teacher`"]),
        ("taught", {"teacher": "zero"}, ["`teacher` belongs to mode = 'logits' or 'on-policy', not to 'samples'"]),
        ("informed", {"mode": "samples"}, ["data = 'stored' is a logits stage, expected a sample stage"]),
        ("informed", {"chat_template": "thinking"}, ["`chat_template` belongs to mode = 'samples'"]),
        ("informed", {"teacher": "zero"}, ["data = 'stored' holds a teacher's distributions", "leave `teacher` out"]),
        ("informed", {"data": "samples"}, ["data = 'samples' holds answers without distributions", "`teacher`", "logits stage"]),
        ("informed", {"data": "pairs", "teacher": "zero"}, ["data = 'pairs' keeps pairs"]),
        ("informed", {"data": "samples", "teacher": ["zero"]}, ["`teacher` is a list only with mode = 'on-policy'"]),
        ("stored", {"data": "zero"}, ["data = 'zero' is a rl stage, expected a sample stage"]),
        ("stored", {"from": "samples"}, ["from = 'samples'", "makes no model"]),
        ("guided", {"teacher": ["zero", "stored"]}, ["teacher[1] = 'stored'", "makes no model"]),
        ("guided", {"teacher": ["zero"]}, ["`teacher` lists 1", "has 2 parts"]),
        ("guided", {"task": COUNTDOWN}, ["`teacher` lists 2", "is no mixture"]),
        ("guided", {"data": "samples"}, ["`data` belongs to mode = 'samples' or 'logits'"]),
        ("eval", {"models": ["base", "corpus"]}, ["models[1] = 'corpus'", "makes no model"]),
        ("eval", {"tasks": [COUNTDOWN]}, ["tasks[0] (countdown) needs `problems`"]),
        ("eval", {"models": []}, ["models = []"]),
    ],
)
def test_a_fault_is_named_with_its_key_and_remedy(stage, changes, expected):
    message = fault(changed(stage, **changes))
    assert [part for part in expected if part not in message] == [], message


def test_an_unknown_key_at_the_top_is_named():
    assert "did you mean `seed`?" in fault({**WHOLE, "sed": 1})


def test_a_model_that_is_nowhere_is_refused_before_anything_runs():
    def find(name):
        if name != "smollm2":
            raise UserError(f"no model {name!r}.")
        return Path(name)

    check_models(parse_recipe(WHOLE, "my.toml"), find, "my.toml")
    with pytest.raises(UserError, match=r"my.toml: stage\[5\] 'taught': from = 'smolm2' is no earlier stage"):
        check_models(parse_recipe(changed("taught", **{"from": "smolm2"}), "my.toml"), find, "my.toml")


def test_a_stages_seed_depends_on_its_name_and_the_recipes_seed_only():
    recipe = parse_recipe(WHOLE, "my.toml")
    alone = parse_recipe({"name": "other", "seed": 3, "stage": [CORPUS]}, "my.toml")
    assert recipe.stage_seed("corpus") == alone.stage_seed("corpus") != recipe.stage_seed("base")
    assert parse_recipe({**WHOLE, "seed": 4}, "my.toml").stage_seed("corpus") != recipe.stage_seed("corpus")


def test_smoke_keeps_every_stage_and_clips_every_count():
    small = smoke(parse_recipe(changed("base", batch_tokens=65536, steps=10_000), "my.toml"))
    assert [stage.name for stage in small.stages] == [table["name"] for table in WHOLE["stage"]]
    base, zero, evaluation = small.stages[1], small.stages[2], small.stages[6]
    assert base.steps <= 6
    assert base.batch_tokens <= 2048
    assert base.model.depth <= 2
    assert zero.prompts * zero.group <= 16
    assert evaluation.tasks[0].problems <= 16
    assert small.name == "test-smoke"


@pytest.mark.parametrize(
    "path", [path for folder in recipe_folders() for path in sorted(folder.glob("*.toml"))], ids=lambda path: path.stem
)
def test_every_recipe_that_ships_is_whole_and_has_a_smoke_form(path):
    asked = tomllib.loads(path.read_text(encoding="utf-8")).get("data", {})
    recipe = load_recipe(path.stem, dict.fromkeys(asked, __file__))
    assert recipe.name == path.stem
    assert smoke(recipe).stages


def test_what_is_not_found_is_told_with_what_there_is(tmp_path):
    with pytest.raises(UserError, match="neither a file nor a recipe that ships"):
        find_recipe(str(tmp_path / "nothing.toml"))


def test_a_file_that_is_not_toml_is_told_with_its_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[[stage]\n')
    with pytest.raises(UserError, match=r"bad.toml is not valid TOML.*line 2"):
        load_recipe(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "kind", "stage", "task", "from", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(content=st.dictionaries(st.sampled_from(["name", "seed", "stage", "price", "x"]), json_values))
def test_any_content_is_taken_or_refused_in_one_sentence_never_a_crash(content):
    with contextlib.suppress(UserError):
        parse_recipe(content, "my.toml")


@given(
    stage=st.sampled_from([table["name"] for table in WHOLE["stage"]]),
    key=st.sampled_from(sorted(set().union(*WHOLE["stage"]))),
    value=json_values,
)
def test_any_one_value_replaced_is_taken_or_refused_never_a_crash(stage, key, value):
    with contextlib.suppress(UserError):
        parse_recipe(changed(stage, **{key: value}), "my.toml")


TEACHER = {"name": "big", "dialect": "openai", "base_url": "https://llm.example.org/v1", "model": "m", "max_cost": 1.0}
TEACHER["price"] = {"prompt": 1.0, "completion": 2.0}
JUDGE = {"kind": "judge", "name": "judge", "from": "base", "teacher": "big", "questions": "q.jsonl", "rubric": "r", "max_new_tokens": 9}
TAUGHT_BY = {
    **WHOLE,
    "teacher": [TEACHER],
    "stage": [CORPUS, BASE, {**SAMPLES, "from": "big"}, SFT, JUDGE, {**SFT, "name": "u", "data": "judge"}],
}


def test_a_teacher_gives_samples_and_grades_and_both_are_data():
    recipe = parse_recipe(TAUGHT_BY, "my.toml")
    assert recipe.teachers[0].price.completion == 2.0
    check_models(recipe, lambda name: pytest.fail(f"{name} was looked for"), "my.toml")
    shrunk = next(stage for stage in smoke(recipe).stages if stage.kind == "judge")
    assert (shrunk.problems, shrunk.keep_from) == (8, 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"teacher": [TEACHER, TEACHER]}, "'big' is there twice"),
        ({"teacher": [{**TEACHER, "name": "base"}]}, "'base' is there twice"),
        ({"teacher": [{**TEACHER, "modle": "m"}]}, "did you mean `model`?"),
        ({"teacher": [{**TEACHER, "price": {"prompt": 1.0}}]}, "price.completion is missing"),
        ({"stage": [{**SFT, "from": "big", "data": __file__.replace(".py", ".jsonl")}]}, "only answers questions"),
        ({"stage": [{**JUDGE, "from": "big"}]}, "only answers questions"),
        ({"stage": [CORPUS, BASE, {**JUDGE, "scale": "a/b", "keep_from": 3}]}, "belongs to scale = '0-10'"),
        ({"stage": [CORPUS, BASE, {**JUDGE, "scale": "a/b", "samples_per_problem": 3}]}, "set samples_per_problem = 2"),
        ({"stage": [CORPUS, BASE, {**JUDGE, "temperature": 0.0}]}, "temperature = 0"),
    ],
)
def test_what_a_teacher_cannot_be_is_said(change, expected):
    assert expected in fault({**TAUGHT_BY, **change})
