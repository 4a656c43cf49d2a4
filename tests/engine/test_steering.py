"""What a request changes about its draws, on each runner: by the formulas, alike in any company, and reported as the model sees it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import scripted_model
from steered import OPTIONS, TOKENIZER, VOCAB, WORDS, Cycle, engine, every_runner, model, needs_kernels

from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.engine.steering import Steering, likeliest
from spoutnik.errors import UserError


class Failing(Cycle):
    def advance(self, token):
        raise UserError("The grammar became too large.")


def reference(request, temperature):
    """Greedy decoding by the formulas as they are written, over whole passes."""
    ids, answer = list(request.prompt_ids), []
    for _ in range(request.max_new_tokens):
        with torch.no_grad():
            logits = model()(torch.tensor([ids]))[0, -1].double().numpy()
        for token in set(ids):
            logits[token] = logits[token] / request.repetition_penalty if logits[token] > 0 else logits[token] * request.repetition_penalty
        for token in set(answer):
            logits[token] -= request.presence_penalty + answer.count(token) * request.frequency_penalty
        for token, bias in request.logit_bias.items():
            logits[token] += bias
        answer.append(int(logits.argmax()))
        ids.append(answer[-1])
    return answer


@every_runner
@settings(max_examples=8)
@given(
    presence=st.floats(-2, 2), frequency=st.floats(-2, 2), repetition=st.floats(0.5, 2),
    bias=st.dictionaries(st.integers(3, VOCAB - 1), st.floats(-100, 100), max_size=4),
)  # fmt: skip
def test_penalties_and_bias_follow_their_formulas(kind, presence, frequency, repetition, bias):
    request = Request(
        WORDS, 12, 0.0, presence_penalty=presence, frequency_penalty=frequency, repetition_penalty=repetition, logit_bias=bias
    )
    (found,) = engine(kind).generate([request])
    expected = reference(request, 1.0)
    assert found.token_ids == expected[: len(found.token_ids)]
    assert found.logprobs == pytest.approx(engine(kind).score([Given([*WORDS, *found.token_ids], len(WORDS))])[0], abs=1e-5)


@every_runner
@pytest.mark.parametrize("name", OPTIONS)
def test_a_steered_request_gets_the_same_alone_and_in_company_and_disturbs_nobody(kind, name):
    steered = Request(WORDS, 15, seed=3, **OPTIONS[name])
    plain = [Request([*WORDS, 10 + index], 9 + index, seed=index) for index in range(4)]
    (alone,) = engine(kind).generate([steered])
    unsteered = engine(kind).generate(plain)
    together = engine(kind, max_batch=3).generate([plain[0], steered, *plain[1:], steered])
    for found in (together[1], together[5]):
        assert found.token_ids == alone.token_ids
        assert found.logprobs == (alone.logprobs if kind == "kernels" else pytest.approx(alone.logprobs, abs=1e-5))
    for found, expected in zip([together[0], *together[2:5]], unsteered, strict=True):
        assert found.token_ids == expected.token_ids
        if kind == "kernels":
            assert found.logprobs == expected.logprobs


@needs_kernels
@pytest.mark.parametrize("name", OPTIONS)
def test_both_runners_draw_the_same(name):
    request = Request(WORDS, 15, seed=9, **OPTIONS[name])
    (modules,), (kernels,) = engine("torch").generate([request]), engine("kernels").generate([request])
    assert modules.token_ids == kernels.token_ids
    assert modules.logprobs == pytest.approx(kernels.logprobs, abs=1e-5)
    for one, other in zip(modules.top_logprobs, kernels.top_logprobs, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in other], abs=1e-5)


@every_runner
def test_asking_for_the_likeliest_changes_nothing_and_says_what_the_model_says(kind):
    plain, asked = Request(WORDS, 12, 0.8, seed=4), Request(WORDS, 12, 0.8, seed=4, top_logprobs=5)
    (without,), (found,) = engine(kind).generate([plain]), engine(kind).generate([asked])
    assert found.token_ids == without.token_ids
    assert found.logprobs == (without.logprobs if kind == "kernels" else pytest.approx(without.logprobs, abs=1e-5))
    assert without.top_logprobs == []
    with torch.no_grad():
        logits_TV = model()(torch.tensor([[*WORDS, *found.token_ids]]))[0, len(WORDS) - 1 : -1] / 0.8
    for top, logprobs_V in zip(found.top_logprobs, logits_TV.log_softmax(-1), strict=True):
        values, tokens = logprobs_V.topk(5)
        assert [token for token, _ in top] == tokens.tolist()
        assert [logprob for _, logprob in top] == pytest.approx(values.tolist(), abs=1e-5)
    assert all(
        dict(top).get(token, logprob) == logprob
        for top, token, logprob in zip(found.top_logprobs, found.token_ids, found.logprobs, strict=True)
    )


@every_runner
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_what_a_constraint_allows_follows_and_a_satisfied_one_ends_the_answer(kind, temperature):
    sets = [{7, 40, VOCAB - 1}, None, {31, 32, 33}]
    constraint = Cycle(*sets, after=8)
    request = Request(WORDS, 20, temperature, constraint=constraint)
    company = Request(WORDS, 9, seed=5)
    beside, found = engine(kind).generate([company, request])
    assert (found.finish_reason, len(found.token_ids)) == ("stop", 8)
    assert all(place % 3 == 1 or token in sets[place % 3] for place, token in enumerate(found.token_ids))
    assert constraint.seen == found.token_ids
    assert found.text == TOKENIZER.decode(found.token_ids), "nothing is cut off where no end-of-sequence token stands"
    assert beside.token_ids == engine(kind).generate([company])[0].token_ids
    scored = engine(kind).score([Given([*WORDS, *found.token_ids], len(WORDS))])[0]
    assert found.logprobs == (scored if kind == "kernels" else pytest.approx(scored, abs=1e-5)), "the model's, not the masked ones"


@every_runner
def test_a_constraint_is_not_told_of_the_end_and_may_ask_for_it(kind):
    constraint = Cycle({9}, {TOKENIZER.eos_token_id})
    (found,) = engine(kind).generate([Request(WORDS, 20, constraint=constraint)])
    assert (found.token_ids, found.finish_reason, constraint.seen) == ([9, TOKENIZER.eos_token_id], "stop", [9])
    assert found.text == TOKENIZER.decode([9])


@every_runner
@pytest.mark.parametrize("constraint", [Failing({9}), Cycle({9}, ())])
def test_a_constraint_that_fails_ends_its_own_request_only(kind, constraint):
    others = [Request(WORDS, 6, seed=seed) for seed in range(2)]
    expected = engine(kind).generate(others)
    first, failed, second = engine(kind).generate([others[0], Request(WORDS, 6, constraint=constraint), others[1]])
    assert failed.finish_reason == "error"
    assert failed.error in (
        "The grammar became too large.",
        "The constraint allows no token that the model has; loosen it, or use the model's own tokenizer.",
    )
    assert [first.token_ids, second.token_ids] == [one.token_ids for one in expected]
    assert first.error is None


@every_runner
def test_thinking_ends_when_its_budget_is_spent(kind):
    talker = scripted_model(TOKENIZER, "the cat sat on\n", 256)
    prompt, end = TOKENIZER.encode("Assistant:<think>\n"), tuple(TOKENIZER.encode("</think>\n"))
    (found,) = engine(kind, talker).generate([Request(prompt, 10, 0.0, thinking_budget=3, thinking_end=end, top_logprobs=1)])
    free = engine(kind, talker).generate([Request(prompt, 10, 0.0)])[0].token_ids
    assert found.token_ids[:3] == free[:3]
    assert tuple(found.token_ids[3 : 3 + len(end)]) == end
    assert found.token_ids[3 + len(end) :] == free[: 10 - 3 - len(end)], "after the line feed the script begins again"
    assert found.logprobs[3] < -1, "what the model says of the forced token"
    assert found.top_logprobs[3][0][0] == free[3]


@every_runner
@pytest.mark.parametrize(
    ("prompt", "budget", "forced"),
    [
        ("Assistant:<think>\n", 0, True),
        ("Assistant:<think></think>\n", 0, False),
        ("Assistant:\n", 2, False),
        ("<think>User Assistant:\n", 2, False),
    ],
)
def test_a_budget_is_for_open_thinking_only(kind, prompt, budget, forced):
    talker = scripted_model(TOKENIZER, "the cat sat on\n", 256)
    end = tuple(TOKENIZER.encode("</think>"))
    (found,) = engine(kind, talker).generate([Request(TOKENIZER.encode(prompt), 6, 0.0, thinking_budget=budget, thinking_end=end)])
    assert ("</think>" in found.text) == forced
    assert found.text.startswith("</think>") == forced


@every_runner
@pytest.mark.parametrize(("prompt", "thinking"), [("Assistant:<think>\n", 3), ("Assistant:\n", 0)])
def test_an_answer_has_so_many_tokens_however_long_the_thinking_was(kind, prompt, thinking):
    talker = scripted_model(TOKENIZER, "the cat sat on\n", 256)
    end = tuple(TOKENIZER.encode("</think>"))
    budget = {"thinking_budget": 3, "thinking_end": end, "max_answer_tokens": 4}
    (found,) = engine(kind, talker).generate([Request(TOKENIZER.encode(prompt), 60, 0.0, **budget)])
    assert (len(found.token_ids), found.finish_reason) == (thinking + bool(thinking) * len(end) + 4, "length")
    (found,) = engine(kind, talker).generate([Request(TOKENIZER.encode("Assistant:<think>\n"), 9, 0.0, max_answer_tokens=4)])
    assert len(found.token_ids) == 9, "thinking that does not end is bounded by max_new_tokens alone"


@every_runner
def test_streamed_events_carry_tokens_log_probabilities_and_the_likeliest(kind):
    running, events = engine(kind), []
    running.add(Request(WORDS, 6, seed=2, top_logprobs=2, stream=True))
    while running.busy:
        events += running.step()
    completion = events[-1].completion
    assert [token for event in events for token in event.tokens] == completion.token_ids
    assert [logprob for event in events for logprob in event.logprobs] == completion.logprobs
    assert [top for event in events for top in event.top_logprobs] == completion.top_logprobs
    assert [len(event.tokens) for event in events] == [1] * 6 + [0]


@every_runner
def test_the_stop_string_that_ended_the_text_is_told(kind):
    talker = scripted_model(TOKENIZER, "the cat sat on\n", 256)
    prompt = TOKENIZER.encode("say\n")
    stopped, free = engine(kind, talker).generate([Request(prompt, 20, 0.0, stop=("mat", " sat")), Request(prompt, 3, 0.0, stop=("mat",))])
    assert (stopped.stop_string, stopped.text, stopped.finish_reason) == (" sat", "the cat", "stop")
    assert free.stop_string is None


@every_runner
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_tell_the_likeliest_tokens_of_given_places(kind, temperature):
    running = engine(kind)
    sequences = [Given([*WORDS * 5, 7 + index], 1 + index) for index in range(3)] + [Given([5], 1)]
    running.add(Request(WORDS, 30, seed=1))
    running.step()
    found = running.score_tops(sequences, temperature, 4)
    assert [one.logprobs for one in found] == running.score(sequences, temperature)
    for one, scored in zip(sequences, found, strict=True):
        if len(one.token_ids) == one.prompt_tokens:
            assert scored.top_logprobs == []
            continue
        with torch.no_grad():
            logits_TV = model()(torch.tensor([one.token_ids]))[0, one.prompt_tokens - 1 : -1] / temperature
        values, tokens = logits_TV.log_softmax(-1).topk(4)
        assert [[token for token, _ in top] for top in scored.top_logprobs] == tokens.tolist()
        assert [logprob for top in scored.top_logprobs for _, logprob in top] == pytest.approx(values.flatten().tolist(), abs=1e-5)
    with pytest.raises(UserError, match="top_logprobs is 21"):
        running.score_tops(sequences, temperature, 21)


@every_runner
def test_a_greedy_answer_is_known_to_be_greedy(kind):
    running = engine(kind)
    (greedy,) = running.generate([Request(WORDS, 8, 0.0)])
    other = [*greedy.token_ids[:-1], greedy.token_ids[-1] - 1]
    scored = running.score_tops([Given([*WORDS, *ids], len(WORDS)) for ids in (greedy.token_ids, other)])
    assert scored[0].is_greedy(greedy.token_ids)
    assert not scored[1].is_greedy(other)


@needs_kernels
def test_beside_a_steered_request_nobody_guesses_and_answers_are_the_same():
    made = model("deepseek-v3")
    requests = [Request(WORDS, 20, seed=1), Request([*WORDS, 9], 20, seed=2)]
    (steered,) = engine("kernels", made).generate([Request(WORDS, 8, seed=3, frequency_penalty=1.0)])
    expected = engine("kernels", made).generate(requests)
    assert sum(one.drafted_tokens for one in expected) > 0
    found = engine("kernels", made).generate([*requests, Request(WORDS, 8, seed=3, frequency_penalty=1.0)])
    assert found[:2] == expected
    assert (found[2].token_ids, found[2].logprobs) == (steered.token_ids, steered.logprobs)
    assert found[2].drafted_tokens == 0
    assert 0 < found[0].drafted_tokens < expected[0].drafted_tokens, "when it has ended they guess again"


@needs_kernels
def test_a_cancelled_requests_pages_are_free_after_one_step():
    running = engine("kernels")
    ids = [running.add(Request([*WORDS, 10 + index], 60, seed=index)) for index in range(3)]
    running.step()
    before = running.runner.blocks.available
    running.cancel(ids[1])
    running.step()
    assert running.runner.blocks.available == before + running.runner.blocks.needed(len(WORDS) + 1 + 60)


def test_equal_logits_are_told_in_the_order_of_their_tokens():
    logits_V = np.array([1, 3, 2, 3, 2, 2, 0], np.float32)
    assert [token for token, _ in likeliest(logits_V, logits_V, 4)] == [1, 3, 2, 4]
    assert [token for token, _ in likeliest(logits_V, logits_V, 20)] == [1, 3, 2, 4, 5, 0, 6]


@pytest.mark.parametrize("field", ["logit_bias", "thinking_end"])
def test_tokens_that_the_model_lacks_are_refused(field):
    options = {"logit_bias": {VOCAB: 1.0}} if field == "logit_bias" else {"thinking_end": (VOCAB,), "thinking_budget": 4}
    with pytest.raises(UserError, match=f"{field} names token {VOCAB}"):
        engine("torch").add(Request(WORDS, **options))


def test_masks_of_other_lengths_than_the_vocabulary_are_fitted():
    for words in (1, 4):
        constraint = Cycle(None)
        constraint.allowed = lambda words=words: np.full(words, 0xFFFFFFFF, np.uint32)
        steering = Steering(Request([1], constraint=constraint), 70, TOKENIZER.decode)
        steering.prepare()
        bits = np.unpackbits(steering.mask.view(np.uint8), bitorder="little")
        assert (len(bits), bits.sum()) == (96, min(32 * words, 70))
