"""The engine does what one forward pass over everything does, whatever runs beside a request, on each runner."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import randomise, tiny_model

from spoutnik.engine import torch_runner
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels import runner as kernel_runner
from spoutnik.engine.kernels.build import compiler
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.scheduler import QueueFullError
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
CONTEXT = 96
PROMPTS = st.lists(st.integers(3, TOKENIZER.vocab_size - 1), min_size=1, max_size=30)
RUNNER: list[str] = []
needs_kernels = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
every_family = pytest.mark.parametrize("family", ["deepseek-v3", "llama-3", "mistral"])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny products gain nothing from threads and lose much where other tests run beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module", params=["torch", pytest.param("kernels", marks=needs_kernels)])
def _every_runner(request):
    """Each test runs on the torch modules and on the C++ kernels."""
    RUNNER.append(request.param)
    yield
    RUNNER.pop()


@cache
def model(family):
    made = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=CONTEXT)
    randomise(made, std=0.12)  # log-probabilities of a trained model's size, for which 1e-5 is meant
    return made


def engine(family="llama-3", max_batch=8, max_length=None, max_queue=None):
    length = min(max_length or CONTEXT, CONTEXT)
    if RUNNER[-1] == "torch":
        runner = TorchRunner(model(family), max_batch, length)
    else:
        runner = KernelRunner(model(family), "float32", max_batch, length)
    return Engine(model(family), TOKENIZER, max_batch, max_length, runner, max_queue)


def full_logprobs(family, prompt_ids, token_ids, temperature):
    """Log-probabilities of a continuation by one forward pass over everything, without a cache."""
    with torch.no_grad():
        logits_TV = model(family)(torch.tensor([[*prompt_ids, *token_ids]]))[0, len(prompt_ids) - 1 : -1]
    return (logits_TV / temperature).log_softmax(-1).gather(-1, torch.tensor(token_ids)[:, None]).squeeze(-1).tolist()


def words(text="the cat sat on the mat"):
    return TOKENIZER.encode(text)


@every_family
@settings(deadline=None, max_examples=8)
@given(prompts=st.lists(PROMPTS, min_size=1, max_size=12), temperature=st.sampled_from([0.0, 0.8, 1.0]))
def test_log_probabilities_are_those_of_a_full_forward_pass(family, prompts, temperature):
    requests = [Request(prompt, 10, temperature, seed=seed) for seed, prompt in enumerate(prompts)]
    for request, completion in zip(requests, engine(family, max_batch=5).generate(requests), strict=True):
        expected = full_logprobs(family, request.prompt_ids, completion.token_ids, temperature or 1.0)
        assert completion.logprobs == pytest.approx(expected, abs=1e-5)
        assert completion.prompt_tokens == len(request.prompt_ids)


@every_family
@settings(deadline=None, max_examples=8)
@given(company=st.lists(PROMPTS, max_size=10), place=st.integers(0, 10), temperature=st.sampled_from([0.0, 1.0]))
def test_a_request_gives_the_same_tokens_alone_and_in_any_company(family, company, place, temperature):
    request = Request(words(), 12, temperature, seed=5)
    (alone,) = engine(family).generate([request])
    requests = [Request(prompt, 3 + 2 * index, 1.0, seed=index) for index, prompt in enumerate(company)]
    requests.insert(place, request)
    among = engine(family, max_batch=4).generate(requests)[min(place, len(company))]
    assert among.token_ids == alone.token_ids


@every_family
def test_greedy_tokens_are_the_likeliest_by_a_full_forward_pass(family):
    (completion,) = engine(family).generate([Request(words(), 20, 0.0)])
    ids = [*words(), *completion.token_ids]
    with torch.no_grad():
        assert model(family)(torch.tensor([ids]))[0].argmax(-1).tolist()[len(words()) - 1 : -1] == completion.token_ids


@every_family
def test_a_prompt_cached_piece_by_piece_gives_the_same_tokens(family, monkeypatch):
    requests = [Request(words() * 5, 8, seed=1), Request(words(), 8, seed=2)]
    whole = engine(family).generate(requests)
    monkeypatch.setattr(torch_runner, "PREFILL_TOKENS", 7)
    monkeypatch.setattr(kernel_runner, "STEP_ROWS", 7)
    monkeypatch.setattr(kernel_runner, "CHUNK_ROWS", 3)
    pieces = engine(family).generate(requests)
    assert [completion.token_ids for completion in pieces] == [completion.token_ids for completion in whole]
    assert pieces[0].logprobs == pytest.approx(whole[0].logprobs, abs=1e-5)


@every_family
def test_a_shared_prompt_changes_nothing(family):
    requests = [Request(words() * 3, 10 + seed, seed=seed) for seed in range(7)] + [Request(words("a dog"), 10, seed=9)]
    alone = [engine(family).generate([request])[0] for request in requests]
    together = engine(family, max_batch=4).generate(requests)
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_generation_ends_at_the_end_of_sequence_token_and_keeps_it_in_the_ids(monkeypatch):
    free = engine().generate([Request(words(), 10, seed=2)])[0].token_ids
    place = next(place for place in range(2, 10) if free[place] not in free[:place])
    monkeypatch.setattr(TOKENIZER, "eos_token_ids", frozenset({free[place]}))
    (completion,) = engine().generate([Request(words(), 10, seed=2)])
    assert completion.token_ids == free[: place + 1]
    assert len(completion.logprobs) == place + 1
    assert completion.finish_reason == "stop"
    assert completion.text == TOKENIZER.decode(free[:place])


def test_a_stop_string_cut_across_tokens_ends_the_text_before_it():
    (free,) = engine().generate([Request(words(), 30, seed=3)])
    pieces = [TOKENIZER.decode([token]) for token in free.token_ids]
    stop = next(a[-1] + b[:1] for a, b in pairwise(pieces[4:]) if a.isascii() and b.isascii())
    streamed = Request(words(), 30, seed=3, stop=("never", stop), stream=True)
    (completion,) = engine().generate([streamed])
    assert completion.finish_reason == "stop"
    assert completion.text == free.text[: free.text.index(stop)]
    assert completion.token_ids == free.token_ids[: len(completion.token_ids)]
    assert stop in TOKENIZER.decode(completion.token_ids)


def test_length_is_what_was_asked_for_or_what_the_context_leaves():
    short, long = engine().generate([Request(words(), 5), Request(words() * 6, 1000)])
    assert (len(short.token_ids), short.finish_reason) == (5, "length")
    assert (len(long.token_ids), long.finish_reason) == (CONTEXT - len(words() * 6), "length")


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths():
    with pytest.raises(UserError, match=rf"{CONTEXT + 3} tokens.*{CONTEXT}"):
        engine().generate([Request(words()), Request([5] * (CONTEXT + 3))])
    with pytest.raises(UserError, match=r"20 tokens.*16"):
        engine(max_length=16).add(Request([5] * 20))


def test_a_token_outside_the_vocabulary_is_refused():
    with pytest.raises(UserError, match=rf"5 to 9999.*{TOKENIZER.vocab_size} tokens"):
        engine().add(Request([5, 9999]))


@every_family
def test_cancelling_frees_the_row_within_one_step_and_disturbs_nobody(family):
    requests = [Request([*words(), 10 + index], 12, seed=index) for index in range(4)]
    expected = engine(family).generate(requests)
    running = engine(family, max_batch=2)
    ids = [running.add(request) for request in requests]
    events = running.step() + running.step()
    assert running.cancel(ids[0])
    assert running.cancel(ids[3])
    assert not running.cancel(ids[0])
    events += running.step()
    assert [sequence.id for sequence in running._scheduler.running] == ids[1:3]
    while running.busy:
        events += running.step()
    assert running.step() == []
    completions = {event.request_id: event.completion for event in events if event.completion}
    assert completions[ids[0]].finish_reason == completions[ids[3]].finish_reason == "cancelled"
    assert completions[ids[0]].token_ids == expected[0].token_ids[:2]
    assert completions[ids[3]].token_ids == []
    assert [completions[id].token_ids for id in ids[1:3]] == [completion.token_ids for completion in expected[1:3]]


def test_a_full_line_refuses_and_takes_again_when_a_place_is_free():
    running = engine(max_batch=1, max_queue=1)
    first, second = running.add(Request(words(), 3)), running.add(Request(words(), 3))
    with pytest.raises(QueueFullError, match="2 waiting"):
        running.add(Request(words(), 3))
    running.cancel(second)
    third = running.add(Request(words(), 3))
    running.step()
    with pytest.raises(QueueFullError, match="1 waiting"):
        running.add(Request(words(), 3))
    ended = []
    while running.busy:
        ended += [event.request_id for event in running.step() if event.completion]
    assert ended == [first, third]
    assert running.generate([Request(words(), 3)])


def test_owners_of_the_same_prompt_get_the_same_tokens():
    requests = [Request(words(), 5, seed=1, owner=owner) for owner in ("", "mine", "theirs")]
    completions = engine().generate(requests)
    assert len({tuple(completion.token_ids) for completion in completions}) == 1
    assert [completion.cached_tokens for completion in completions] == [0, 0, 0]


def test_a_step_that_fails_leaves_an_idle_engine(monkeypatch):
    running = engine()
    running.add(Request(words(), 5))
    running.step()

    def fail(sequences):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(running.runner, "step", fail)
        with pytest.raises(MemoryError):
            running.step()
    assert not running.busy
    request = Request(words(), 4, seed=1)
    assert running.generate([request]) == engine().generate([request])


def test_streamed_text_joins_to_the_whole():
    running = engine()
    request_id = running.add(Request(words(), 20, seed=7, stream=True))
    quiet = running.add(Request(words(), 20, seed=8))
    events = []
    while running.busy:
        events += running.step()
    mine = [event for event in events if event.request_id == request_id]
    assert len(mine) == 21
    assert "".join(event.text for event in mine) == mine[-1].completion.text == TOKENIZER.decode(mine[-1].completion.token_ids)
    assert len([event for event in events if event.request_id == quiet]) == 1


def test_generate_leaves_an_idle_engine_however_it_ends():
    running = engine()

    def interrupt(ended, tokens):
        if tokens >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.generate([Request(words())] * 2, progress=interrupt)
    assert not running.busy
    (completion,) = running.generate([Request(words(), 4, seed=1)])
    assert completion.token_ids == engine().generate([Request(words(), 4, seed=1)])[0].token_ids
    running.add(Request(words()))
    with pytest.raises(RuntimeError, match="idle engine"):
        running.generate([Request(words())])


def test_progress_counts_ended_requests_and_tokens():
    seen = []
    engine(max_batch=2).generate([Request(words(), 3, seed=i) for i in range(3)], progress=lambda *news: seen.append(news))
    assert seen == [(0, 2), (0, 4), (2, 6), (2, 7), (2, 8), (3, 9)]


def test_a_step_tells_what_it_computed_for_whom():
    running = engine(max_batch=2)
    lengths = {running.add(Request(words(), 3)): len(words()), running.add(Request(words("a mat"), 2)): len(words("a mat"))}
    running.add(Request(words(), 1))
    computed = dict.fromkeys(lengths, 0)
    assert running.load == (0, 3)
    while running.busy:
        running.step()
        assert running.load[0] <= 2
        for request_id, tokens in running.computed.items():
            computed[request_id] = computed.get(request_id, 0) + tokens
    first, second = lengths
    assert lengths[first] + 2 <= computed[first] <= lengths[first] + 3
    assert lengths[second] + 1 <= computed[second] <= lengths[second] + 2


@every_family
def test_a_model_can_be_trained_after_it_generated(family):
    trained = model(family).train()
    engine(family).generate([Request(words(), 3)])
    assert trained.training
    trained(torch.tensor([words()])).log_softmax(-1)[..., 0].sum().backward()
    assert all(parameter.grad is not None for name, parameter in trained.named_parameters() if "layers.0" in name)
    trained.zero_grad()
    trained.eval()


def test_weights_that_hold_nan_give_a_clear_error():
    broken = engine()
    weight = broken.model.model.norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0] = torch.nan
    try:
        with pytest.raises(UserError, match="not finite"):
            broken.generate([Request(words())])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
