"""lm-evaluation-harness as a client of our server: the scores of the engine in this process. Needs the extra `lm-eval`."""

import json

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'spoutnik[lm-eval]'")
pytest.importorskip("fastapi", reason="the server's packages are not installed: pip install 'spoutnik[serve]'")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from served import serving

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.generator import Engine
from spoutnik.evaluate.harness import EngineLM
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.tasks.harness import prepare

TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def both(tokenizer, tmp_path_factory):
    """One small model in this process, and behind a server, which the harness sends tokens to."""
    config = depth_config("llama", 2, tokenizer.vocab_size).with_(
        max_position_embeddings=96, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model = CausalLM(config)
    initialise(model, seed=3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that likelihoods are far from even
    folder = tmp_path_factory.mktemp("model") / "llama"
    save_checkpoint(model, tokenizer, folder)
    prepare()
    with serving(model, tokenizer) as running:
        served = LocalCompletionsAPI(
            base_url=f"{running.url}/v1/completions", model="tiny", tokenizer=str(folder), tokenizer_backend="huggingface",
            tokenized_requests=True, add_bos_token=True, num_concurrent=4, batch_size=3, max_length=96, max_retries=1,
        )  # fmt: skip
        yield served, EngineLM(Engine(model, tokenizer, max_batch=8), "llama")


def test_a_multiple_choice_task_scores_the_same_over_http(both, tmp_path):
    rows = [
        {"question": f"Calculate {a}+{b}.", "choices": [str(a + b), f"{a * b + 1} or so", str(a)], "answer": (a + b) % 3}
        for a in range(2, 7)
        for b in (5, 6, 7)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "sums.yaml").write_text(TASK.replace("DATA", str(data)), encoding="utf-8")
    served, ours = (scores(model, tmp_path / "sums.yaml") for model in both)
    assert served == ours
    assert set(ours) == {"acc,none", "acc_norm,none"}
    assert any(0 < value < 1 for value in ours.values()), "neither chance nor a constant would be noticed"


def scores(model, task):
    """What the harness says of a model."""
    manager = TaskManager(include_defaults=False)
    found = lm_eval.simple_evaluate(model, tasks=[load_yaml(str(task), resolve_func=True)], bootstrap_iters=0, task_manager=manager)
    [values] = found["results"].values()
    return {key: value for key, value in values.items() if key.startswith("acc") and "stderr" not in key}


def test_likelihoods_and_greediness_of_every_continuation_are_the_same_over_http(both):
    texts = ["Make 12 from 3, 4", "using + and -", " 12", "\n", "(3 * 4)", "é"]
    pairs = [(context, continuation) for context in texts for continuation in texts]
    said = both[1].generate_until([Instance("generate_until", {}, (texts[0], {"max_gen_toks": 4, "until": []}), 0)])[0]
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate([*pairs, (texts[0], said)])]
    found, expected = (model.loglikelihood(asked) for model in both)
    assert [one[1] for one in found] == [one[1] for one in expected]
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-9)


def test_whole_texts_have_the_same_likelihood_over_http(both):
    asked = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(["3 + 4 = 7", "12", "Make 12 from 3, 4."])]
    found, expected = (model.loglikelihood_rolling(asked) for model in both)
    assert found == pytest.approx(expected, abs=1e-9)
