"""Tasks of lm-evaluation-harness as tasks of an evaluation: the harness's own figures, and problems like any other's.

Needs the extra `lm-eval` (about 70 packages).
"""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'spoutnik[lm-eval]'")

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.cli.eval_text import headline
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.evaluate.evaluate import run_eval
from spoutnik.evaluate.figures import Evaluation
from spoutnik.evaluate.harness import EngineLM
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe import EvalStage
from spoutnik.tasks import make


@pytest.fixture(scope="module")
def ours(tokenizer):
    """A small Llama as the harness sees it."""
    config = depth_config("llama", 2, tokenizer.vocab_size).with_(
        max_position_embeddings=96, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model = CausalLM(config)
    initialise(model, seed=3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that likelihoods are far from even
    return EngineLM(Engine(model, tokenizer, max_batch=8), "llama")


@pytest.fixture(scope="module")
def folder(ours, tmp_path_factory):
    """The same on disk."""
    path = tmp_path_factory.mktemp("saved") / "llama"
    save_checkpoint(ours.engine.model, ours.tokenizer, path)
    return str(path)


QUESTIONS = [
    {"question": f"Calculate {a}+{b}.", "choices": [str(a + b), str(a * b + 1), str(a)], "answer": 0} for a in (3, 4, 5) for b in (5, 6)
]
CHOICE = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""
TEXTS_OF = """task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
ANSWERS = [{"question": f"What is {a} + 4?", "answer": f"{a} + 4 = {a + 4}\n#### {a + 4}"} for a in range(1, 7)]
SHORT = """include: PLACE
task: short
dataset_path: json
dataset_name: null
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
training_split: null
fewshot_split: null
num_fewshot: 0
generation_kwargs: {until: ["Question:"], do_sample: false}
"""


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def written(tmp_path):
    """Writes a task's file with its data and says where it is."""

    def write(text, rows):
        place = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
        data = lines(tmp_path / "data.jsonl", rows)
        (tmp_path / "task.yaml").write_text(text.replace("DATA", str(data)).replace("PLACE", str(place)), encoding="utf-8")
        return f"lm-eval:{tmp_path / 'task.yaml'}"

    return write


def stage(models, name, **changes):
    task = {"name": name, "problems": 99, **{key: changes.pop(key) for key in ("chat", "metric", "filter", "problems") if key in changes}}
    return EvalStage.model_validate({"name": "stage", "models": models, "tasks": [task], "max_new_tokens": 8, **changes})


def evaluated(stage, context):
    run_eval(stage, context)
    return Evaluation.model_validate_json((context.directory / "evaluation.json").read_text(encoding="utf-8"))


def by_the_harness(model, name, limit=None, chat=False, **changes):
    """{(metric, filter): value} as the harness itself works it out, {metric,filter: [each document's]}."""
    config = {**load_yaml(name.removeprefix("lm-eval:"), resolve_func=True), **changes}
    found = lm_eval.simple_evaluate(
        model, tasks=[config], limit=limit, apply_chat_template=chat, bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_defaults=False), fewshot_random_seed=1234,
    )  # fmt: skip
    [values] = found["results"].values()
    return {tuple(key.split(",")): value for key, value in values.items() if "," in key and "_stderr" not in key}


@pytest.mark.parametrize("chat", [False, True])
def test_a_task_decided_by_likelihoods_has_the_harnesss_own_figures_and_pairs(ours, folder, written, context, tmp_path, chat):
    name = written(CHOICE, QUESTIONS)
    other = tmp_path / "other"
    save_checkpoint(ours.engine.model, ours.tokenizer, other)
    whole = evaluated(stage([folder, str(other)], name, chat=chat), context)
    measured = {(one.metric, one.filter): one.value for one in whole.measures if one.model == folder}
    assert measured == pytest.approx(by_the_harness(ours, name, chat=chat))
    first, second = whole.results
    assert (first.n, first.pass_at_1.value, first.format, first.tokens_per_answer) == (6, measured["acc", "none"], None, 0.0)
    assert first.pass_at_1 == second.pass_at_1
    assert [(pair.n, pair.better, pair.worse, pair.p) for pair in whole.pairs] == [(6, 0, 0, 1.0)]
    [acc, _, _, _] = whole.measures
    assert (acc.low, acc.high, acc.higher_is_better) == (first.pass_at_1.low, first.pass_at_1.high, True)
    rows = [json.loads(line) for line in next(context.directory.glob("answers/*llama--*")).read_text().splitlines()]
    assert {row["answer"] for row in rows} <= {choice for question in QUESTIONS for choice in question["choices"]} | {"3", "4"}


def test_another_metric_is_read_from_the_same_answers(folder, written, context):
    name = written(CHOICE, QUESTIONS)
    evaluated(stage([folder], name), context)
    kept = {path: path.read_bytes() for path in context.directory.glob("answers/*")}
    whole = evaluated(stage([folder], name, metric="acc_norm"), context)
    assert {path: path.read_bytes() for path in context.directory.glob("answers/*")} == kept
    [result] = whole.results
    assert result.pass_at_1.value == next(one.value for one in whole.measures if one.metric == "acc_norm")
    with pytest.raises(UserError, match="no metric as asked for"):
        run_eval(stage([folder], name, metric="bleu"), context)


def test_a_task_without_right_and_wrong_has_measures_alone(ours, folder, written, context):
    name = written(TEXTS_OF, QUESTIONS)
    whole = evaluated(stage([folder], name), context)
    assert (whole.results, whole.pairs) == ([], [])
    assert {(one.metric, one.filter): one.value for one in whole.measures} == pytest.approx(by_the_harness(ours, name), rel=1e-5)
    assert headline(whole).startswith(f"word_perplexity on 6 documents of {name}: {folder} ")


def test_a_task_that_lets_the_model_write_is_graded_by_its_own_filters(ours, folder, written, context):
    name = written(SHORT, ANSWERS)
    whole = evaluated(stage([folder], name, problems=4), context)
    settings = {"generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 8}}
    assert {(one.metric, one.filter): one.value for one in whole.measures} == by_the_harness(ours, name, limit=4, **settings)
    assert [one.filter for one in whole.measures] == ["strict-match", "flexible-extract"]
    assert whole.results[0].n == 4


def test_over_the_network_the_same_task_is_a_conversation_and_cut_at_its_stop_strings(server, remote, folder, written, context):
    name = written(SHORT, ANSWERS)
    remote("clever")
    server.answer = lambda messages: (f"It is #### {int(messages[-1]['content'].split()[3]) + 4}\nQuestion: 9 #### 9", "hm")
    whole = evaluated(stage(["clever", folder], name, filter="flexible-extract"), context)
    clever = whole.results[0]
    assert (clever.model, clever.pass_at_1.value, clever.currency) == ("clever", 1.0, "USD")
    body = server.seen[0][2]
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["messages"][0]["content"].startswith("Question: What is ")
    row = json.loads(next(context.directory.glob("answers/clever*")).read_text().splitlines()[0])
    assert row["text"].startswith("<think>\nhm\n</think>")
    assert row["scores"] == {"exact_match,strict-match": 1.0, "exact_match,flexible-extract": 1.0}
    assert [(pair.better, pair.worse) for pair in whole.pairs] == [(6 - whole.results[1].correct, 0)]


def test_several_answers_are_drawn_at_the_temperature_that_is_asked_for(folder, written, context):
    whole = evaluated(stage([folder], written(SHORT, ANSWERS), samples_per_problem=2, temperature=30.0), context)
    assert (whole.results[0].k, whole.results[0].pass_at_k is not None) == (2, True)
    rows = [json.loads(line) for line in next(context.directory.glob("answers/*llama--*")).read_text().splitlines()]
    assert len({row["text"] for row in rows if row["problem"] == 0}) == 2


def test_examples_come_before_the_question_the_same_for_every_model(tmp_path):
    data, examples = lines(tmp_path / "data.jsonl", ANSWERS[:2]), lines(tmp_path / "examples.jsonl", ANSWERS[2:])
    task = make("lm-eval:gsm8k", data=str(data), examples=str(examples), shots=2)
    texts = [each[0].args[0] for each in task.requests(2, None)]
    assert texts == [each[0].args[0] for each in task.requests(2, None)]
    assert [text.count("Question:") for text in texts] == [3, 3]
    assert task.problem("held-out", 0, 1).prompt == "Question: What is 2 + 4?\nAnswer:"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("gsm8k", {}, "from the network"),
        ("gsm8q", {}, "no task 'gsm8q'"),
        ("nowhere.yaml", {}, "no task file"),
        ("gsm8k", {"data": "nowhere.jsonl"}, "no file nowhere.jsonl"),
        ("gsm8k", {"data": "data.jsonl"}, "5 solved examples"),
        ("gsm8k", {"data": "data.jsonl", "shots": 0, "filter": "none"}, "has no filter 'none'; it has: strict-match"),
        ("gsm8k_cot_self_consistency", {"data": "data.jsonl", "shots": 0}, "asks for 64 answers"),
    ],
)
def test_what_is_not_at_hand_is_refused_in_a_sentence(tmp_path, monkeypatch, name, options, expected):
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "data.jsonl", ANSWERS)
    with pytest.raises(UserError, match=expected):
        make(f"lm-eval:{name}", **options)


def test_likelihoods_are_not_asked_of_servers_nor_drawn_twice(written):
    task = make(written(CHOICE, QUESTIONS))
    with pytest.raises(UserError, match="servers of chat models do not give; leave far out"):
        task.check(1, ["far"])
    with pytest.raises(UserError, match="one sample"):
        task.check(2, [])
    with pytest.raises(UserError, match="for evaluations"):
        task.problem("train", 0, 0)
