"""A server may say anything: what is no reply is told apart, and counts that cannot be are not believed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.teacher.base import Usage
from spoutnik.teacher.dialects import DIALECTS, MalformedError, Reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["choices", "message", "content", "reasoning_content", "reasoning", "finish_reason", "stop_reason", "usage", "prompt_tokens", "type",
     "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens", "text", "thinking", "model", "refusal",
     "prompt_cache_hit_tokens", "prompt_cache_miss_tokens"]
)  # fmt: skip
VALUES = st.recursive(
    JSON | st.sampled_from(["stop", "text", "thinking", "end_turn"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4),
)


@pytest.mark.parametrize("dialect", DIALECTS)
@example(content={"content": [{"type": []}], "choices": [{"message": {}, "finish_reason": []}]})
@given(content=st.dictionaries(KEYS, VALUES, max_size=5) | JSON)
def test_whatever_comes_is_a_reply_or_malformed(dialect, content):
    try:
        reply = DIALECTS[dialect].reply(content)
    except MalformedError:
        return
    assert isinstance(reply, Reply)
    assert all(isinstance(text, str) for text in (reply.text, reply.reasoning, reply.model))
    assert reply.usage is None or min(reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cached_tokens) >= 0


def chat(usage, content="text", **message):
    return {"model": "m", "choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}], "usage": usage}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3}, Usage(9, 3)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 4}, Usage(9, 3, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(9, 3, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 400}, Usage(9, 3, 9)),
        ({"prompt_tokens": 0, "completion_tokens": 3}, None),
        ({"prompt_tokens": 9, "completion_tokens": 0}, None),
        ({"prompt_tokens": 9.0, "completion_tokens": 3}, None),
        ({"prompt_tokens": True, "completion_tokens": 3}, None),
        ({"prompt_tokens": 9}, None),
        (None, None),
        ("9", None),
    ],
)
def test_impossible_counts_are_unknown(usage, expected):
    assert DIALECTS["openai"].reply(chat(usage)).usage == expected


def test_thinking_goes_by_two_names_and_a_refusal_is_one():
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    read = DIALECTS["openai"].reply
    assert read(chat(usage, reasoning_content="hm")).reasoning == read(chat(usage, reasoning="hm")).reasoning == "hm"
    assert read(chat(usage, content=None, refusal="I will not.")).finish_reason == "refused"


def test_anthropic_blocks_are_joined_and_cached_tokens_are_part_of_the_prompt():
    reply = DIALECTS["anthropic"].reply(
        {
            "content": [
                {"type": "thinking", "thinking": "so ", "signature": "x"}, {"type": "redacted_thinking", "data": "y"},
                {"type": "thinking", "thinking": "what"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
            ],
            "stop_reason": "max_tokens", "usage": {"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 20},
        }
    )  # fmt: skip
    assert reply == Reply("ab", "so what", "length", Usage(23, 7, 20), "")


def test_deepseeks_hits_and_misses_must_make_up_the_prompt():
    read = DIALECTS["deepseek"].reply
    counts = {"prompt_tokens": 9, "completion_tokens": 3}
    assert read(chat({**counts, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5})).usage == Usage(9, 3, 4)
    assert read(chat(counts)).usage == Usage(9, 3), "a server of another kind that speaks the dialect"
    assert read(chat({**counts, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 4})).usage is None
    assert read(chat({**counts, "prompt_cache_hit_tokens": "4"})).usage is None
    assert read(chat(counts, reasoning_content="hm", reasoning="no")).reasoning == "hm"


def test_mistrals_chunks_are_told_apart():
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "so "}, {"type": "reference", "reference_ids": [1]}]}
    more = {"type": "thinking", "thinking": "what", "closed": True}
    texts = [{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [2]}, {"type": "text", "text": "b"}]
    assert DIALECTS["mistral"].reply(chat(usage, content=[thought, more, *texts])) == Reply("ab", "so what", "stop", Usage(9, 3), "m")
    assert DIALECTS["mistral"].reply(chat(usage, content="plain")).text == "plain"
    for broken in ([{"type": "thinking", "thinking": 3}], ["text"], [{"type": "text", "text": 1}], {"type": "text"}):
        with pytest.raises(MalformedError):
            DIALECTS["mistral"].reply(chat(usage, content=broken))


@pytest.mark.parametrize(
    ("dialect", "said", "meant"),
    [("mistral", "model_length", "length"), ("deepseek", "length", "length"), ("deepseek", "content_filter", "refused"),
     ("deepseek", "insufficient_system_resource", None), ("mistral", "error", None), ("mistral", "tool_calls", None)],
)  # fmt: skip
def test_an_end_that_is_the_servers_fault_is_no_answer(dialect, said, meant):
    reply = {"choices": [{"message": {"content": "text"}, "finish_reason": said}]}
    if meant:
        assert DIALECTS[dialect].reply(reply).finish_reason == meant
    else:
        with pytest.raises(MalformedError, match=said):
            DIALECTS[dialect].reply(reply)
