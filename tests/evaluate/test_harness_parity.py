"""lm-evaluation-harness on our engine: the same numbers as its own Hugging Face model. Needs lm-eval[hf]."""

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'spoutnik[lm-eval]'")
pytest.importorskip("accelerate", reason="the harness's Hugging Face model needs more: pip install 'lm-eval[hf]'")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.evaluate.harness import EngineLM
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.tasks.harness import prepare

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def both(tokenizer, tmp_path_factory):
    """One small Llama as the harness's own model and as ours, which counts the last token, that is never read, into the context."""
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
    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4, max_length=95)
    return theirs, EngineLM(Engine(model, tokenizer, max_batch=8), "llama")


def instances(kind, arguments):
    return [Instance(kind, {}, each, index) for index, each in enumerate(arguments)]


TEXTS = ["Make 12 from 3, 4", "using + and -", "each number once.", "7 + 5 = 12", " 12", "\n", "(3 * 4)"]


def test_log_likelihoods_and_greediness_are_those_of_the_hugging_face_model(both):
    theirs, ours = both
    pairs = [(context, continuation) for context in ("", *TEXTS) for continuation in TEXTS]
    pairs += [("3 + 4 " * 40, "= 7"), ("trailing space ", "12")]
    expected, found = (model.loglikelihood(instances("loglikelihood", pairs)) for model in (theirs, ours))
    for (their_sum, their_greedy), (our_sum, our_greedy) in zip(expected, found, strict=True):
        assert our_sum == pytest.approx(their_sum, abs=TOLERANCE)
        assert our_greedy == their_greedy


def test_what_the_model_itself_says_is_greedy_and_one_other_token_is_not(both):
    theirs, ours = both
    context = "Make 12 from"
    said = ours.generate_until(instances("generate_until", [(context, {"max_gen_toks": 4, "until": []})]))[0]
    pairs = [(context, said), (context, said[:-1] + ("a" if said[-1:] != "a" else "b"))]
    assert [each[1] for each in ours.loglikelihood(instances("loglikelihood", pairs))] == [
        each[1] for each in theirs.loglikelihood(instances("loglikelihood", pairs))
    ]


def test_whole_texts_have_the_same_likelihood(both):
    theirs, ours = both
    texts = [(text,) for text in TEXTS]
    expected, found = (model.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for model in (theirs, ours))
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_text_beyond_the_context_is_scored_in_windows_each_token_once(both):
    theirs, ours = both
    text = "3 + 4 = 7, " * 60
    assert len(ours.tok_encode(text)) > 2 * ours.max_length
    expected, found = (model.loglikelihood_rolling(instances("loglikelihood_rolling", [(text,)])) for model in (theirs, ours))
    assert found == pytest.approx(expected, rel=1e-6)


def test_generated_texts_and_their_ends_are_the_same(both):
    theirs, ours = both
    settings = [{"until": ["\n", "="], "max_gen_toks": 12, "do_sample": False}, {"until": ["3"], "max_gen_toks": 20, "temperature": 0.0}]
    asked = [(text, setting) for text in TEXTS if text.strip() for setting in settings]
    expected, found = (model.generate_until(instances("generate_until", asked)) for model in (theirs, ours))
    assert found == expected


def test_settings_that_the_engine_does_not_have_are_refused(both):
    with pytest.raises(UserError, match="num_beams"):
        both[1].generate_until(instances("generate_until", [("a", {"until": [], "num_beams": 4})]))
    with pytest.raises(UserError, match="max_gen_toks"):
        both[1].generate_until(instances("generate_until", [("a", {"until": [], "max_gen_toks": 5000})]))


def test_conversations_are_written_alike(both):
    theirs, ours = both
    history = [{"role": "user", "content": "What is 3 + 4?"}]
    assert ours.apply_chat_template(history) == theirs.apply_chat_template(history)
    assert ours.chat_template(True) == theirs.chat_template(True)
    answered = [*history, {"role": "assistant", "content": "It is"}]
    assert ours.apply_chat_template(answered, add_generation_prompt=False).endswith("It is")
