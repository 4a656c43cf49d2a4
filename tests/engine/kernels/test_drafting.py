"""Guessing ahead changes how many calls an answer takes, and nothing else."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tiny_adapters import matrices, write_adapter
from tiny_models import foresee, randomise, tiny_model

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, Chunk, NativeEngine, layout
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.store import Store
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
LENGTH = 160
PROMPT = np.random.default_rng(0).integers(5, TOKENIZER.vocab_size, 75).tolist()
PRECISIONS = ["float32", "bfloat16", "int8", "int4"]


class When:
    """Guesses when told, whatever it costs."""

    def __init__(self, *answers):
        self.answers, self.asked = answers, 0
        self.noted = []

    def guesses(self, sequences):
        self.asked += 1
        return self.answers[(self.asked - 1) % len(self.answers)]

    def note(self, sequences, guessed, seconds, tokens):
        self.noted.append((sequences, guessed, tokens))


@cache
def model(rest=None, sign=1.0):
    """A random model, or one whose layer for further tokens foresees them but for the `rest` of the others' work."""
    made = tiny_model("deepseek-v3", vocab_size=TOKENIZER.vocab_size, max_position_embeddings=LENGTH)
    randomise(made, std=0.12)
    if rest is not None:
        foresee(made, rest, sign)
    return made


def engine(made, *when, precision="float32", max_batch=4, tokenizer=TOKENIZER, **settings):
    """An engine that guesses when told; without being told, one that cannot."""
    runner = KernelRunner(made, precision, max_batch, LENGTH, speculate=bool(when), **settings)
    if when:
        runner.drafting.chooser = When(*when)
    return Engine(made, tokenizer, max_batch, LENGTH, runner)


def guesses(completions):
    return sum(one.drafted_tokens for one in completions), sum(one.accepted_tokens for one in completions)


@pytest.fixture
def fed(monkeypatch):
    """The rows of each call and whether it goes on to guess."""
    seen = []
    original = NativeEngine.run

    def run(self, tokens, *rest, **options):
        seen.append((len(tokens), options.get("follow") is not None))
        return original(self, tokens, *rest, **options)

    monkeypatch.setattr(NativeEngine, "run", run)
    return seen


# ---- the layer's operations
def further(made, precision, pieces, threads=2):
    """Logits of the tokens after the next, all but the last piece of the prompt only entered. A page of two is not where it was made."""
    native = NativeEngine(threads)
    program = write_program(made, native, precision, 128, 128, LENGTH, drafts=True)
    native.cache(precision != "float32", made.config.num_hidden_layers + 1, *cache_shape(made), 8)
    place, pages = 0, (6, 1, 3)
    for number, length in enumerate(pieces):
        tokens, last = PROMPT[place : place + length], number == len(pieces) - 1
        native.step([Chunk(tokens, place, pages)], [], np.zeros(0, DRAW))
        following = PROMPT[place + 1 : place + length + 1]
        picked = np.arange(len(following) if last else 0, dtype=np.int32)
        _, logits = native.run(
            np.array(following, dtype=np.int32), *layout([Chunk(following, place + 1, pages)]), picked, np.zeros(len(picked), DRAW), True,
            operations=program.drafts if last else program.entries, sources=np.arange(length, dtype=np.int32),
        )  # fmt: skip
        place += length
    return logits


@torch.no_grad()
def test_float32_logits_of_the_token_after_the_next_are_those_of_the_modules():
    made, ids = model(), torch.tensor([PROMPT])
    expected = made.head(made.predict_further(made.hidden(ids)[:, :-2], ids[:, 1:-1]))[0]
    found = further(made, "float32", [73])
    assert torch.allclose(found, expected, atol=2e-5 * expected.abs().max())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_layer_has_the_same_bits_however_the_prompt_is_cut(precision):
    whole = further(model(), precision, [73])
    assert torch.equal(further(model(), precision, [1, 31, 2, 29, 10], threads=1), whole[-10:])


# ---- answers
MIXED = [
    Request(PROMPT, 40, temperature=0), Request(PROMPT[:64], 33, seed=1), Request(PROMPT[:33], 50, temperature=0.5, top_p=0.9, seed=2),
    Request(PROMPT[:64], 33, seed=3, top_k=7), Request([5], 60, temperature=0.3, seed=4), Request(PROMPT, 1, seed=5),
    Request(PROMPT[::-1], 2, seed=6), Request(PROMPT, 300, seed=7),
]  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rest", [None, 0.02])
def test_tokens_and_log_probabilities_are_those_without_guesses(precision, rest):
    """Greedy and sampled, beside each other, with prompts of one, of several and of the same tokens; also where it stops and starts."""
    made = model(rest)
    expected = engine(made, precision=precision).generate(MIXED)
    for when in ((True,), (True, True, False)):
        running = engine(made, *when, precision=precision)
        found = running.generate(MIXED)
        assert found == expected
        drafted, accepted = guesses(found)
        assert drafted > 40
        assert accepted > (0.3 * drafted if rest else 0)
        again = running.generate(MIXED)
        assert [replace(one, cached_tokens=0) for one in again] == [replace(one, cached_tokens=0) for one in expected]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_adapters_too_they_are_those_without_guesses_in_a_batch_of_several_and_of_the_base(precision, tmp_path):
    made = model(0.02)
    loaded = {
        name: read_adapter(write_adapter(tmp_path / name, matrices(made, seed=seed, std=0.06)), made)
        for seed, name in enumerate(["red", "blue"])
    }
    names = ("red", "", "blue", "red", "blue", "")
    requests = [replace(request, adapter=name) for request, name in zip([MIXED[0]] * 4 + MIXED[2:4], names, strict=True)]
    answers = []
    for when in ((), (True,), (True, True, False)):
        running = engine(made, *when, precision=precision)
        for name, one in loaded.items():
            running.add_adapter(name, one)
        answers.append(running.generate(requests))
    assert answers[1] == answers[0] == answers[2]
    assert len({tuple(one.logprobs) for one in answers[0][:3]}) == 3
    for found in answers[1:]:
        for name in loaded:
            drafted, accepted = guesses([one for one, request in zip(found, requests, strict=True) if request.adapter == name])
            assert 0 < accepted < drafted, "right guesses and wrong ones"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_layer_that_is_always_right_halves_the_steps_and_is_counted(temperature, fed):
    """Also at a temperature: guess and token are drawn with the same number."""
    running = engine(model(0.0), True)
    (found,) = running.generate([Request(PROMPT, 41, temperature=temperature, seed=1)])
    assert (found.drafted_tokens, found.accepted_tokens) == (20, 20)
    assert fed == [(75, False), (74, False), (75, True), *[(2, True)] * 20]
    assert running.runner.drafting.chooser.noted == [(1, True, 2)] * 20
    assert running.tokens_generated == 41


def test_a_layer_that_is_always_wrong_costs_rows_and_is_counted(fed):
    (found,) = engine(model(0.0, -1.0), True).generate([Request(PROMPT, 41, temperature=0)])
    assert (found.drafted_tokens, found.accepted_tokens) == (39, 0)
    assert fed == [(75, False), (74, False), (75, True), *[(2, True)] * 40]


def test_while_it_does_not_pay_no_row_is_fed_and_no_layer_run_for_it(fed):
    running = engine(model(0.0), False)
    (found,) = running.generate([Request(PROMPT, 9)])
    assert guesses([found]) == (0, 0)
    assert fed == [(75, False), *[(1, False)] * 8]
    assert running.runner.drafting.chooser.noted == [(1, False, 1)] * 8


def test_a_layer_that_computes_nan_guesses_nothing_and_is_left():
    made = copy.deepcopy(model(0.0))
    with torch.no_grad():
        made.model.layers[-1].eh_proj.weight[0, 0] = torch.nan
    running = engine(made, True)
    requests = [Request(PROMPT, 60, seed=1), Request(PROMPT[::-1], 60, seed=2)]
    found = running.generate(requests)
    assert found == engine(model(0.0)).generate(requests)
    assert guesses(found) == (0, 0)
    assert running.runner.drafting.chooser.noted == [(2, True, 2)] * 59, "what it costs is told"


def test_a_batch_for_whose_guesses_there_is_no_room_goes_without():
    requests = [Request([5 + seed], 3, seed=seed) for seed in range(70)]
    found = engine(model(0.0), True, max_batch=70).generate(requests)
    assert found == engine(model(0.0), max_batch=70).generate(requests)
    assert guesses(found) == (0, 0)


def test_a_model_without_the_layer_has_nothing_to_guess_with():
    made = tiny_model("llama-3", vocab_size=TOKENIZER.vocab_size, max_position_embeddings=LENGTH)
    runner = KernelRunner(made, "float32", 4, LENGTH, speculate=True)
    assert runner.drafting is None
    assert guesses(Engine(made, TOKENIZER, 4, LENGTH, runner).generate([Request(PROMPT, 9)])) == (0, 0)


@pytest.mark.parametrize("place", range(1, 8))
def test_an_answer_ends_between_the_two_tokens_of_a_step_as_it_does_without(place):
    made = model(0.0)
    (free,) = engine(made).generate([Request(PROMPT, 12, seed=3)])
    assert len(set(free.token_ids[: place + 1])) == place + 1, "the test needs tokens that differ"
    short, stopped = Request(PROMPT, place, seed=3), Request(PROMPT, 12, seed=3, stop=(TOKENIZER.decode([free.token_ids[place]]),))
    for request in (short, stopped, replace(short, stream=True), replace(stopped, stream=True)):
        assert engine(made, True).generate([request]) == engine(made).generate([request])
    ending = copy.copy(TOKENIZER)
    ending.eos_token_ids = frozenset([free.token_ids[place]])
    (found,) = engine(made, True, tokenizer=ending).generate([Request(PROMPT, 12, seed=3)])
    assert [found] == engine(made, tokenizer=ending).generate([Request(PROMPT, 12, seed=3)])
    assert found.token_ids == free.token_ids[: place + 1]


def test_a_stream_tells_the_same_text_in_the_same_order():
    def told(running):
        events = []
        first = running.add(Request(PROMPT, 21, seed=3, stream=True, stop=("zzz",)))
        while running.busy:
            events += running.step()
        assert {event.request_id for event in events} == {first}
        return [event.text for event in events], events[-1].completion

    assert told(engine(model(0.0), True)) == told(engine(model(0.0)))


def test_a_context_is_filled_to_its_end():
    request = Request(PROMPT, 1000, seed=2)
    (found,) = engine(model(0.1), True).generate([request])
    assert found.finish_reason == "length"
    assert found.prompt_tokens + len(found.token_ids) == LENGTH
    assert [found] == engine(model(0.1)).generate([request])


# ---- pages
def entries(running, page):
    """The words of a page's part that belongs to the layer."""
    drafting = running.runner.drafting
    return np.frombuffer(bytes(running.runner._engine.page(page)[-len(drafting._zeros) :]), np.uint32)


def held(running, tokens):
    """The pages that hold these tokens, all full."""
    table = running.runner.blocks.acquire(tokens, len(tokens), ("", bytes(32)))
    assert table.cached == len(tokens)
    return [entries(running, page) for page in table.pages]


def test_what_is_kept_of_generated_tokens_is_what_a_prompt_of_them_would_leave():
    running = engine(model(0.1), True)
    (made,) = running.generate([Request(PROMPT, 60, seed=2)])
    tokens = ([*PROMPT, *made.token_ids])[: 4 * PAGE]
    fresh = engine(model(0.1), True)
    fresh.generate([Request([*tokens, 5], 1)])
    for mine, theirs in zip(held(running, tokens), held(fresh, tokens), strict=True):
        assert np.array_equal(mine, theirs)


def test_what_is_not_known_is_zero_and_nothing_of_others_is_left():
    running = engine(model(0.1), True, cache_bytes=6 * len(engine(model(0.1), True).runner._engine.page(0)))
    for seed in range(3):
        running.generate([Request(PROMPT[::-1], 60, seed=seed)])
    running.runner.drafting.chooser = When(True, True, False, False, False)
    (made,) = running.generate([Request(PROMPT, 60, seed=2)])
    tokens = ([*PROMPT, *made.token_ids])[: 4 * PAGE]
    fresh = engine(model(0.1), True)
    fresh.generate([Request([*tokens, 5], 1)])
    gaps = 0
    for mine, theirs in zip(held(running, tokens), held(fresh, tokens), strict=True):
        assert ((mine == theirs) | (mine == 0)).all()
        gaps += (mine != theirs).any()
    assert gaps == 2, "the pages in which guessing stopped"


def test_at_the_end_of_its_room_a_sequence_stays_in_its_own_pages():
    """A right guess of the token after its last would lie in the next page, which is the neighbour's."""
    running = engine(model(0.0), True)
    ending, beside = Request([*PROMPT, 5], 52, seed=1), Request(PROMPT[::-1], 60, seed=2)
    first, second = running.generate([ending, beside])
    assert first.prompt_tokens + len(first.token_ids) == 4 * PAGE
    assert first.accepted_tokens == first.drafted_tokens == 25, "two tokens a step, but for the first and the last"
    tokens = [*PROMPT[::-1], *second.token_ids][: 4 * PAGE]
    fresh = engine(model(0.0), True)
    fresh.generate([Request([*tokens, 5], 1)])
    for mine, theirs in zip(held(running, tokens), held(fresh, tokens), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_pages_on_disk_hold_the_layers_part_too(precision, tmp_path):
    request = Request(PROMPT, 30, seed=3)
    store = Store(tmp_path)
    (before,) = engine(model(0.1), True, precision=precision, store=store).generate([request])
    store.close()
    restarted = engine(model(0.1), True, precision=precision, store=Store(tmp_path))
    (after,) = restarted.generate([request])
    assert after == replace(before, cached_tokens=2 * PAGE)
    assert after.accepted_tokens >= before.accepted_tokens - 2
    without = engine(model(0.1), precision=precision, store=Store(tmp_path))
    assert without.generate([request]) == [before], "its pages are others"
