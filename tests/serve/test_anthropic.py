"""Anthropic's own client: answers are those of the engine alone, in blocks, whole and streamed; errors are of its classes."""

import asyncio
import json
import time
from typing import Literal

import anthropic
import httpx2
import pydantic
import pytest
from served import CALL, random_model, scripted, serving

from spoutnik.library import Model
from spoutnik.serve.settings import Settings

COLD = {"extra_body": {"temperature": 0}}
"""The client has no word of its own for it any more."""
ASK = [{"role": "user", "content": "the cat"}]
LOOK = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {"at": {"type": "array"}}}}


def client_of(running, prefix="", **settings):
    return anthropic.Anthropic(base_url=running.url + prefix, api_key="none", max_retries=0, **settings)


@pytest.fixture(scope="module")
def caller():
    """A server of a model that thinks "one", says "two" and makes a call."""
    with serving(*scripted("one</think> two" + "".join(CALL))) as running:
        yield running


def test_an_answer_is_that_of_the_engine_alone_in_blocks(thinker):
    for prefix in ("", "/anthropic"):
        message = client_of(thinker, prefix).messages.create(model="tiny", max_tokens=60, messages=ASK, **COLD)
        thought, text = message.content
        assert (thought.type, thought.thinking, text.type, text.text) == ("thinking", "one two", "text", "three é four")
        assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", "tiny")
        alone = Model(thinker.engine.model, thinker.engine.tokenizer).chat(ASK, max_new_tokens=60, temperature=0)
        usage = message.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == alone.prompt_tokens
        assert usage.output_tokens == len(alone.token_ids)
        assert 0 < usage.output_tokens_details.thinking_tokens < usage.output_tokens
        assert usage.cost["cpu_seconds"] > 0
        assert message._request_id.startswith("req_")


def test_a_stream_has_anthropics_order_of_events_and_joins_to_the_whole_answer(thinker):
    ask = {"model": "tiny", "max_tokens": 60, "messages": ASK, **COLD}
    with client_of(thinker).messages.stream(**ask) as stream:
        events = [event for event in stream if event.type in anthropic_events()]
        message = stream.get_final_message()
    whole = client_of(thinker).messages.create(**ask)
    assert [block.model_dump(exclude={"parsed_output"}) for block in message.content] == [block.model_dump() for block in whole.content]
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert events[0].message.usage.input_tokens > 0
    assert events[-2].usage.output_tokens == whole.usage.output_tokens
    assert (message.usage.output_tokens, message.stop_reason) == (whole.usage.output_tokens, "end_turn")
    opened = None
    for event in events[1:-2]:
        if event.type == "content_block_start":
            assert opened is None
            opened = event.index
        assert event.index == opened
        opened = None if event.type == "content_block_stop" else opened
    assert opened is None


def anthropic_events():
    return {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}


def test_the_asynchronous_client_gets_what_the_other_gets(thinker):
    async def ask():
        async with anthropic.AsyncAnthropic(base_url=thinker.url, auth_token="none", max_retries=0) as client:
            one, stream = (
                await client.messages.create(model="tiny", max_tokens=60, messages=ASK, **COLD),
                client.messages.stream(model="tiny", max_tokens=60, messages=ASK, **COLD),
            )
            async with stream as events:
                text = "".join([piece async for piece in events.text_stream])
            return one.content[-1].text, text, await client.messages.count_tokens(model="tiny", messages=ASK)

    whole, streamed, count = asyncio.run(ask())
    assert whole == streamed == "three é four"
    assert count.input_tokens > 0


def test_tokens_are_counted_as_they_are_used(thinker):
    ask = {"model": "claude-haiku-4-5", "messages": ASK, "system": "Be brief.", "tools": [LOOK]}
    counted = client_of(thinker).messages.count_tokens(**ask).input_tokens
    usage = client_of(thinker).messages.create(**ask, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert counted > client_of(thinker).messages.count_tokens(model="tiny", messages=ASK).input_tokens
    long = [{"role": "user", "content": "cat " * 3000}]
    assert client_of(thinker).messages.count_tokens(model="tiny", messages=long).input_tokens > 1024
    with pytest.raises(anthropic.BadRequestError, match="context holds 1024"):
        client_of(thinker).messages.create(model="tiny", messages=long, max_tokens=1)


def test_what_the_cache_gave_is_told_at_the_end_of_a_stream(tiny):
    ask = {"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "the mat and the cat thought " * 6}]}
    first = client_of(tiny).messages.create(**ask).usage
    with client_of(tiny).messages.stream(**ask) as stream:
        second = stream.get_final_message().usage
    assert (first.cache_read_input_tokens, second.cache_read_input_tokens >= 32) == (0, True)
    assert second.input_tokens + second.cache_read_input_tokens == first.input_tokens


def test_text_may_come_as_blocks_and_neighbours_of_one_role_are_one_turn(thinker):
    def count(**ask):
        return client_of(thinker).messages.count_tokens(model="tiny", **ask).input_tokens

    blocks = [{"type": "text", "text": "the cat", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "sat"}]
    assert count(messages=[{"role": "user", "content": blocks}]) == count(messages=[{"role": "user", "content": "the cat\n\nsat"}])
    assert count(messages=[{"role": "user", "content": "the cat"}, {"role": "user", "content": "sat"}]) == count(
        messages=[{"role": "user", "content": "the cat\n\nsat"}]
    )
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=12345;"}
    brief = {"type": "text", "text": "Be brief."}
    assert count(messages=ASK, system=[billing, brief]) == count(messages=ASK, system="Be brief.")


def test_a_call_is_a_block_whole_and_streamed_and_its_result_goes_back(caller):
    ask = {"model": "tiny", "max_tokens": 99, "messages": ASK, "tools": [LOOK], **COLD}
    message = client_of(caller).messages.create(**ask)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    call = message.content[-1]
    assert (message.stop_reason, call.name, call.input) == ("tool_use", "look", {"at": [1, "é"]})
    assert call.id.startswith("toolu_")
    with client_of(caller).messages.stream(**ask) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        streamed = stream.get_final_message()
    assert json.loads("".join(pieces)) == streamed.content[-1].input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "a mat"}]}
    again = [*ASK, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    count = client_of(caller).messages.count_tokens
    whole = count(model="tiny", messages=again, tools=[LOOK]).input_tokens
    failed = [*again[:2], {"role": "user", "content": [result | {"is_error": True}, {"type": "text", "text": "Go on."}]}]
    assert count(model="tiny", messages=failed, tools=[LOOK]).input_tokens > whole
    without = [*ASK, {"role": "assistant", "content": message.content[1:]}, again[2]]
    assert count(model="tiny", messages=without, tools=[LOOK]).input_tokens < whole, "the thinking comes back with the call"
    assert client_of(caller).messages.create(**ask | {"messages": again}).stop_reason == "tool_use"


def test_thinking_that_is_not_told_comes_back_in_its_signature(caller):
    ask = {"model": "tiny", "max_tokens": 99, "messages": ASK, "tools": [LOOK], **COLD}
    hidden = ask | {"thinking": {"type": "adaptive", "display": "omitted"}}
    seen, unseen = client_of(caller).messages.create(**ask), client_of(caller).messages.create(**hidden)
    with client_of(caller).messages.stream(**hidden) as stream:
        assert [block.model_dump(include={"thinking", "signature"}) for block in stream.get_final_message().content[:1]] == [
            {"thinking": "", "signature": unseen.content[0].signature}
        ]
    assert (seen.content[0].thinking, unseen.content[0].thinking) == ("one", "")

    def count(message, drop=()):
        blocks = [block.model_dump(exclude_none=True) | {"id": "toolu_1"} for block in message.content if block.type not in drop]
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a mat"}
        turns = [*ASK, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        return client_of(caller).messages.count_tokens(model="tiny", messages=turns, tools=[LOOK]).input_tokens

    assert count(seen) == count(unseen) > count(seen, drop=["thinking"])
    other = {"type": "redacted_thinking", "data": "xyz"}
    turns = [*ASK, {"role": "assistant", "content": [other, {"type": "text", "text": "two"}]}, *ASK]
    assert client_of(caller).messages.create(model="tiny", max_tokens=1, messages=turns).usage.output_tokens == 1


def test_thinking_is_switched_and_bounded(thinker, tiny):
    ask = {"model": "tiny", "max_tokens": 60, "messages": ASK, **COLD}
    message = client_of(thinker).messages.create(**ask, thinking={"type": "disabled"})
    assert [block.type for block in message.content] == ["text"]
    message = client_of(tiny).messages.create(**ask, thinking={"type": "enabled", "budget_tokens": 7})
    assert 7 <= message.usage.output_tokens_details.thinking_tokens < 14
    with serving(*random_model(), settings=Settings(budgets={"low": 5, "high": 25, "max": None})) as running:
        low, high = (client_of(running).messages.create(**ask, output_config={"effort": effort}) for effort in ("low", "xhigh"))
    assert 5 <= low.usage.output_tokens_details.thinking_tokens < 12
    assert high.usage.output_tokens_details.thinking_tokens >= 25


def test_why_an_answer_ended_is_told(thinker):
    create = client_of(thinker).messages.create
    message = create(model="tiny", max_tokens=60, messages=ASK, **COLD, stop_sequences=["four", "three"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "three")
    assert create(model="tiny", max_tokens=2, messages=ASK, **COLD).stop_reason == "max_tokens"
    with serving(*scripted("five six\n", context=64)) as running:
        ask = {"model": "tiny", "max_tokens": 4000, "messages": ASK, **COLD}
        assert client_of(running).messages.create(**ask | {"extra_body": {"top_k": 1}}).stop_reason == "model_context_window_exceeded"


def test_an_answer_that_was_begun_goes_on(thinker):
    begun = [*ASK, {"role": "assistant", "content": "\n"}]
    message = client_of(thinker).messages.create(model="tiny", max_tokens=60, messages=begun, **COLD)
    assert [block.text for block in message.content] == ["one two</think> three é four"]


def test_calls_and_schemas_are_kept_to_by_a_model_that_would_write_anything():
    with serving(*random_model(context=2048)) as running:
        keep_to_shapes(client_of(running).messages)


def keep_to_shapes(messages):
    class Mood(pydantic.BaseModel):
        mood: Literal["good", "bad"]

    quiet = {"model": "tiny", "max_tokens": 200, "messages": ASK, "thinking": {"type": "disabled"}}
    parsed = messages.parse(**quiet, output_format=Mood)
    assert parsed.parsed_output.mood in ("good", "bad")
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"], "additionalProperties": False}
    feel, other = {"name": "feel", "input_schema": schema}, {"name": "other", "input_schema": {"type": "object"}}
    for choice in ({"type": "tool", "name": "feel"}, {"type": "any", "disable_parallel_tool_use": True}):
        tools = [feel] if choice["type"] == "any" else [other, feel]
        message = messages.create(**quiet, tools=tools, tool_choice=choice)
        assert [(block.type, block.name, block.input["mood"] in ("good", "bad")) for block in message.content] == [
            ("tool_use", "feel", True)
        ]
    message = messages.create(**quiet | {"max_tokens": 20}, tools=[feel], tool_choice={"type": "none"})
    assert [block.type for block in message.content] == ["text"]


def test_models_are_listed_in_the_dialect_that_asks(tiny):
    listed = client_of(tiny).models.list()
    assert [model.id for model in listed] == ["tiny", "anthropic/tiny"]
    assert (listed.data[0].type, listed.data[0].max_input_tokens, listed.has_more) == ("model", 512, False)
    assert client_of(tiny, "/anthropic").models.retrieve("anthropic/tiny").display_name == "tiny"
    assert httpx2.get(f"{tiny.url}/v1/models").json()["object"] == "list"
    message = client_of(tiny).messages.create(model="anthropic/tiny", max_tokens=1, messages=ASK)
    assert message.model == "anthropic/tiny"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": "other"}, anthropic.NotFoundError, "no model 'other'"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, anthropic.BadRequestError, "no content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, anthropic.BadRequestError, "reads text"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, anthropic.BadRequestError, "web_search_20250305"),
        ({"tools": [LOOK, LOOK]}, anthropic.BadRequestError, "same name"),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "no tools"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "x"}}, anthropic.BadRequestError, "not among the tools"),
        ({"stop_sequences": [""]}, anthropic.BadRequestError, "stop_sequences"),
        ({"output_config": {"effort": "furious"}}, anthropic.BadRequestError, "furious"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_are_of_the_clients_own_classes(tiny, changes, kind, words, stream):
    with pytest.raises(kind, match=words) as caught:
        client_of(tiny).messages.create(**{"model": "tiny", "max_tokens": 4, "messages": ASK, "stream": stream, **changes})
    body = caught.value.body
    assert (body["type"], body["request_id"]) == ("error", caught.value.request_id)
    assert body["error"]["type"] == ("not_found_error" if kind is anthropic.NotFoundError else "invalid_request_error")


def test_a_server_that_is_too_busy_is_overloaded_in_anthropics_words(tiny):
    tiny.service.draining = True
    try:
        with pytest.raises(anthropic.APIStatusError) as caught:
            client_of(tiny).messages.create(model="tiny", max_tokens=4, messages=ASK)
    finally:
        tiny.service.draining = False
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (529, "overloaded_error")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_stream_that_waits_is_pinged_and_one_that_breaks_ends_with_an_error():
    model, tokenizer = random_model()
    with serving(model, tokenizer, settings=Settings(keep_alive_s=0.05)) as running:
        step = running.engine.runner.step

        def slow_and_failing(sequences):
            if len(sequences[0].token_ids) > 2:
                time.sleep(0.3)
                raise RuntimeError("secret details")
            return step(sequences)

        running.engine.runner.step = slow_and_failing
        ask = {"model": "tiny", "max_tokens": 8, "messages": ASK, "stream": True}
        text = httpx2.post(f"{running.url}/v1/messages", json=ask | COLD["extra_body"]).text
        assert 'event: ping\ndata: {"type":"ping"}\n\n' in text
        assert text.endswith('"}\n\n')
        assert "event: error\n" in text
        assert "message_stop" not in text
        assert "secret" not in text
        with pytest.raises(anthropic.APIStatusError, match="failed at this request"):
            list(client_of(running).messages.create(**ask, **COLD))
