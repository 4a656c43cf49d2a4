"""Scoring says of given tokens what the sampler said when it drew them: to the bit by the kernels, up to rounding by the modules."""

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import randomise, tiny_model

from spoutnik.engine import scoring
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels import runner as kernel_runner
from spoutnik.engine.kernels.build import PAGE, compiler
from spoutnik.engine.kernels.native import NativeEngine
from spoutnik.engine.kernels.program import cache_shape
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
WORDS = TOKENIZER.encode("the cat sat on the mat and the dog ran, 1 2 3 four five.")
CONTEXT = 160
FAMILIES = ["deepseek-v3", "llama-3", "mistral", "llama-bias"]
needs_kernels = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
every_family = pytest.mark.parametrize("family", FAMILIES)
every_precision = pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
every_runner = pytest.mark.parametrize("precision", ["torch", pytest.param("float32", marks=needs_kernels)])


@cache
def model(family="llama-3", dtype=torch.float32):
    made = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=CONTEXT)
    randomise(made, std=0.12)
    return made.to(dtype).eval()


def of_one(model, precision):
    """Bytes of the cache for one sequence of the full length."""
    shape = (precision != "float32", len(model.model.layers), *cache_shape(model))
    return NativeEngine(1).page_bytes(*shape) * -(-CONTEXT // PAGE)


def engine(precision, family="llama-3", max_batch=8, sequences=None, dtype=torch.float32):
    made = model(family, dtype)
    if precision == "torch":
        runner = TorchRunner(made, max_batch, CONTEXT)
    else:
        runner = KernelRunner(made, precision, max_batch, CONTEXT, sequences and sequences * of_one(made, precision))
    return Engine(made, TOKENIZER, max_batch, CONTEXT, runner)


def sampled(running, prompts, temperature, most=40, **changes):
    """Sequences that the engine writes, and what it says of them."""
    requests = [Request(prompt, most - index % 7, temperature, seed=index, **changes) for index, prompt in enumerate(prompts)]
    completions = running.generate(requests)
    sequences = [Given([*prompt, *answer.token_ids], len(prompt)) for prompt, answer in zip(prompts, completions, strict=True)]
    return sequences, [answer.logprobs for answer in completions]


def prompts(shared=3, alone=3):
    """Groups that share a prompt longer than two pages, and short prompts."""
    return [(WORDS * 9)[:75]] * shared + [(WORDS * 2)[index:] for index in range(alone)] + [[5]]


@needs_kernels
@every_precision
@every_family
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_scores_of_sampled_tokens_are_the_samplers_bits(family, precision, temperature):
    running = engine(precision, family)
    sequences, expected = sampled(running, prompts(), temperature)
    assert running.exact
    assert running.score(sequences, temperature) == expected, "with what sampling left in the cache"
    assert engine(precision, family).score(sequences, temperature) == expected, "by an engine that has never sampled"


@needs_kernels
@every_precision
def test_truncated_sampling_reports_and_scores_the_whole_distribution(precision):
    running = engine(precision)
    sequences, expected = sampled(running, prompts(), 0.8, top_k=5, top_p=0.9)
    assert running.score(sequences, 0.8) == expected


@needs_kernels
@every_precision
@pytest.mark.parametrize("family", ["deepseek-v3", "llama-3"])
@settings(max_examples=6)
@given(data=st.data())
def test_neither_company_nor_order_nor_cutting_nor_memory_changes_a_bit(family, precision, data):
    running = engine(precision, family)
    sequences, expected = sampled(running, prompts(), 1.0)
    order = data.draw(st.permutations(range(len(sequences))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_runner, "STEP_ROWS", data.draw(st.sampled_from([1, 5, 64, 512])))
        patch.setattr(kernel_runner, "SCORED_ROWS", data.draw(st.sampled_from([1, 3, 64])))
        patch.setattr(kernel_runner, "CHUNK_ROWS", data.draw(st.sampled_from([1, 3, 16, 40])))
        other = engine(precision, family, max_batch=data.draw(st.integers(1, 3)), sequences=data.draw(st.sampled_from([1, None])))
        for _ in range(data.draw(st.integers(1, 2))):
            count = data.draw(st.integers(1, len(order)))
            assert other.score([sequences[index] for index in order[:count]]) == [expected[index] for index in order[:count]]
            cut = data.draw(st.integers(1, 70))
            earlier = other.score([Given(sequences[0].token_ids, cut)])[0]
            assert earlier[75 - cut :] == expected[0], "where the prompt is said to end does not matter"


@needs_kernels
def test_scoring_beside_running_requests_disturbs_nobody():
    texts = prompts()
    sequences, expected = sampled(engine("float32"), texts, 1.0)
    running = engine("float32", max_batch=3)
    ids = [running.add(Request(prompt, 40 - index % 7, 1.0, seed=index)) for index, prompt in enumerate(texts)]
    completions, steps = {}, 0
    while running.busy:
        completions |= {event.request_id: event.completion for event in running.step() if event.completion}
        steps += 1
        if steps % 9 == 0:
            assert running.score(sequences) == expected
    assert [completions[one].logprobs for one in ids] == expected


@needs_kernels
def test_a_prompt_that_a_group_shares_is_computed_once(monkeypatch):
    sequences, _ = sampled(engine("float32"), prompts(shared=4, alone=0), 1.0, most=20)
    rows, step = [], NativeEngine.step

    def counted(self, chunks, *rest):
        rows.append(sum(len(chunk.tokens) for chunk in chunks))
        return step(self, chunks, *rest)

    monkeypatch.setattr(NativeEngine, "step", counted)
    engine("float32").score(sequences[:4])
    computed = sum(len(one.token_ids) - 1 for one in sequences[:4])
    assert sum(rows) == computed - 3 * 74, "two whole pages are found by all but the first, and the third is copied"


@needs_kernels
def test_scored_text_is_found_by_a_request_that_goes_on_with_it():
    running, text = engine("float32"), (WORDS * 9)[:100]
    running.score([Given(text, 1)])
    everything = running.runner.blocks.available
    assert running.runner.blocks.acquire(text, len(text), ("", bytes(32))).cached == 96
    assert everything == running.runner.blocks.pages, "and holds no page"


@needs_kernels
def test_a_cache_that_others_fill_is_told_with_both_numbers_and_left_in_order():
    running = engine("float32", max_batch=2, sequences=1)
    sequences, expected = sampled(running, [WORDS], 1.0)
    running.add(Request(WORDS, 100, seed=1))
    running.step()
    with pytest.raises(UserError, match=r"room for 32 tokens.*needs 59; score it when fewer run"):
        running.score([sequences[0], Given((WORDS * 9)[:100], 1)])
    while running.busy:
        running.step()
    assert running.runner.blocks.available == running.runner.blocks.pages
    assert running.score(sequences) == expected


@every_runner
@every_family
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_scores_are_those_of_a_full_forward_pass(family, precision, temperature, monkeypatch):
    monkeypatch.setattr(scoring, "PASS_TOKENS", 200)
    monkeypatch.setattr(scoring, "HEAD_ROWS", 7)
    rng = random.Random(1)
    sequences = [Given([rng.randrange(TOKENIZER.vocab_size) for _ in range(length)], length // 3 + 1) for length in (2, 90, 31, 7, 160, 33)]
    for one, found in zip(sequences, engine(precision, family).score(sequences, temperature), strict=True):
        with torch.no_grad():
            logits_TV = model(family)(torch.tensor([one.token_ids]))[0, one.prompt_tokens - 1 : -1] / (temperature or 1.0)
        targets = torch.tensor(one.token_ids[one.prompt_tokens :])
        assert found == pytest.approx(logits_TV.log_softmax(-1).gather(-1, targets[:, None])[:, 0].tolist(), abs=1e-5)


@every_family
def test_the_modules_agree_with_their_sampler_up_to_rounding(family):
    running = engine("torch", family)
    sequences, expected = sampled(running, prompts(), 0.8)
    assert not running.exact
    for found, reported in zip(running.score(sequences, 0.8), expected, strict=True):
        assert found == pytest.approx(reported, abs=1e-5)


@every_runner
def test_nothing_to_score_gives_nothing(precision):
    running = engine(precision)
    assert running.score([]) == []
    assert running.score([Given([5, 6], 2), Given([7], 1)]) == [[], []]
    among = running.score([Given([5, 6], 2), Given([5, 6], 1), Given([7], 1)])
    assert [len(each) for each in among] == [0, 1, 0]


@every_runner
def test_what_cannot_be_scored_is_refused_with_the_numbers(precision):
    running = engine(precision)
    assert len(running.score([Given([5] * CONTEXT, 1)])[0]) == CONTEXT - 1
    with pytest.raises(UserError, match=rf"{CONTEXT + 1} tokens.*holds {CONTEXT}"):
        running.score([Given([5], 1), Given([5] * (CONTEXT + 1), 1)])
    for prompt_tokens in (0, 4, -1):
        with pytest.raises(UserError, match=rf"prompt_tokens is {prompt_tokens} for a sequence of 3"):
            running.score([Given([5, 6, 7], prompt_tokens)])
    with pytest.raises(UserError, match=r"5 to 9999"):
        running.score([Given([5, 9999], 1)])
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="temperature is"):
            running.score([Given([5, 6], 1)], temperature)


@every_runner
def test_weights_that_hold_nan_give_a_clear_error_and_no_page_that_is_trusted(precision):
    running, text = engine(precision), Given((WORDS * 9)[:100], 90)
    before = running.score([text])
    weight = running.model.model.norm.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = torch.nan
        with pytest.raises(UserError, match=r"not finite.*check its weights"):
            running.score([text])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert running.score([text]) == before


@every_runner
def test_a_model_in_training_stays_in_training(precision):
    running = engine(precision)
    running.model.train()
    running.score([Given([5, 6], 1)])
    assert running.model.training
    running.model.eval()
