"""An answer that goes on from its first tokens is the one that was never interrupted: tokens, text, log-probabilities, steering, end."""

from dataclasses import replace

import pytest
from scripted import scripted_model
from steered import OPTIONS, TOKENIZER, VOCAB, WORDS, Cycle, engine, every_runner, model

from spoutnik.engine.request import Begun, Request
from spoutnik.errors import UserError

THINKING = {
    "prompt_ids": TOKENIZER.encode("Assistant:<think>\n"), "thinking_budget": 3, "thinking_end": tuple(TOKENIZER.encode("</think>\n")),
    "top_logprobs": 1,
}  # fmt: skip
CASES = {
    "plain": {},
    "stop": {"stop": ("at", " and the")},
    **OPTIONS,
    "constraint": {},
    "thinking": THINKING,
    "answer": {**THINKING, "max_answer_tokens": 4},
}


def whole(running, request):
    """All events of a streamed request."""
    running.add(replace(request, stream=True))
    events = []
    while running.busy:
        events += running.step()
    return events


def same(kind, found, expected):
    found = replace(found, cached_tokens=0, accepted_tokens=0)
    if kind == "torch":  # modules agree up to rounding where a prompt is read at once
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        assert [[token for token, _ in top] for top in found.top_logprobs] == [[token for token, _ in top] for top in expected.top_logprobs]
        found = replace(found, logprobs=expected.logprobs, top_logprobs=expected.top_logprobs)
    assert found == replace(expected, cached_tokens=0)


@every_runner
@pytest.mark.parametrize("case", CASES)
def test_from_wherever_it_goes_on_an_answer_is_the_same(kind, case):
    constrained = {"constraint": Cycle({7, 40, VOCAB - 1}, None, {31, 32, 33}, after=8)} if case == "constraint" else {}
    request = Request(**{"prompt_ids": WORDS, "max_new_tokens": 15, "seed": 3, **CASES[case], **constrained})
    events = whole(engine(kind), request)
    expected, drawn = events[-1].completion, [event for event in events if event.tokens]
    again = engine(kind)
    for cut in range(1, len(drawn)):
        lost = drawn[:cut]
        tops = tuple(top for event in lost for top in event.top_logprobs)
        begun = Begun(tuple(expected.token_ids[:cut]), tuple(expected.logprobs[:cut]), tops)
        if constrained:
            constrained = {"constraint": Cycle(*request.constraint.sets, after=8)}
        rest = whole(again, replace(request, begun=begun, **constrained))
        same(kind, rest[-1].completion, expected)
        assert [token for event in rest for token in event.tokens] == expected.token_ids[cut:]
        assert "".join(event.text for event in [*lost, *rest]) == expected.text


@every_runner
def test_it_goes_on_without_a_stream_and_in_company(kind):
    running = engine(kind)
    requests = [Request([*WORDS, 10 + index], 12, seed=index) for index in range(4)]
    expected = running.generate(requests)
    begun = [Begun(tuple(one.token_ids[:5]), tuple(one.logprobs[:5])) for one in expected]
    found = running.generate([replace(request, begun=one) for request, one in zip(requests, begun, strict=True)])
    for one, other in zip(found, expected, strict=True):
        same(kind, one, other)
        assert one.cached_tokens <= one.prompt_tokens


def test_an_end_of_sequence_token_ends_it_as_ever():
    talker = scripted_model(TOKENIZER, "the cat", 256)
    running = engine("torch", talker)
    request = Request(TOKENIZER.encode("say\n"), 30, 0.0)
    (expected,) = running.generate([request])
    (found,) = running.generate([replace(request, begun=Begun(tuple(expected.token_ids[:1]), tuple(expected.logprobs[:1])))])
    assert (found.text, found.token_ids, found.finish_reason) == (expected.text, expected.token_ids, expected.finish_reason)


def test_more_tokens_than_there_is_room_for_or_than_the_model_knows_are_refused():
    with pytest.raises(UserError, match=r"begun is .*fewer tokens"):
        Request(WORDS, 5, begun=Begun((1,) * 5, (0.0,) * 5))
    running = engine("torch", model())
    with pytest.raises(UserError, match="room for"):
        running.add(Request(WORDS, 500, begun=Begun((1,) * 200, (0.0,) * 200)))
    with pytest.raises(UserError, match=f"begun holds {VOCAB} to {VOCAB}"):
        running.add(Request(WORDS, 500, begun=Begun((VOCAB,), (0.0,))))
