"""OpenAI's own client of the Responses API: what it gets is what /chat/completions gives, in items, whole and streamed."""

import asyncio
import json
from typing import Literal

import httpx2
import openai
import pydantic
import pytest
from served import CALL, random_model, scripted, serving

from spoutnik.serve.settings import Settings

ASK = {"model": "tiny", "input": "the cat", "temperature": 0}
LOOK = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def caller():
    with serving(*scripted("one</think> two" + "".join(CALL))) as running:
        yield running


def without_ids(item):
    return {key: value for key, value in item.items() if key not in ("id", "call_id")}


def test_an_answer_is_that_of_chat_completions_in_items(thinker, client):
    response = client(thinker).responses.create(**ASK)
    thought, message = response.output
    assert (thought.type, thought.content[0].text, message.content[0].text) == ("reasoning", "one two", "three é four")
    assert (response.output_text, response.status, response.store) == ("three é four", "completed", False)
    chat = client(thinker).chat.completions.create(model="tiny", messages=[{"role": "user", "content": "the cat"}], temperature=0)
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (
        chat.usage.prompt_tokens, chat.usage.completion_tokens, chat.usage.total_tokens,
    )  # fmt: skip
    assert usage.output_tokens_details.reasoning_tokens == chat.usage.completion_tokens_details.reasoning_tokens
    assert usage.cost["cpu_seconds"] > 0
    counted = client(thinker).responses.input_tokens.count(model="tiny", input="the cat")
    assert counted.input_tokens == usage.input_tokens


STREAMED = [
    "response.created", "response.in_progress",
    "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done",
    "response.content_part.done", "response.output_item.done",
    "response.output_item.added", "response.content_part.added", "response.output_text.delta", "response.output_text.done",
    "response.content_part.done", "response.output_item.done",
    "response.output_item.added", "response.function_call_arguments.delta", "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
]  # fmt: skip


def test_a_stream_has_every_event_in_order_and_ends_with_the_whole_response(caller, client):
    ask = ASK | {"tools": [LOOK]}
    events = list(client(caller).responses.create(**ask, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind] == STREAMED
    whole = client(caller).responses.create(**ask).model_dump()
    last = events[-1].response.model_dump()
    assert [*map(without_ids, last["output"])] == [*map(without_ids, whole["output"])]
    assert [*map(without_ids, (event.item.model_dump() for event in events if event.type == "response.output_item.done"))] == [
        *map(without_ids, whole["output"])
    ]
    for kind in ("output_text", "reasoning_text", "function_call_arguments"):
        deltas = "".join(event.delta for event in events if event.type == f"response.{kind}.delta")
        (done,) = (event for event in events if event.type == f"response.{kind}.done")
        assert deltas == (done.arguments if kind == "function_call_arguments" else done.text)
    call = whole["output"][-1]
    assert (call["name"], json.loads(call["arguments"])) == ("look", {"at": [1, "é"]})
    text = httpx2.post(f"{caller.url}/v1/responses", json=ask | {"stream": True}).text
    assert "[DONE]" not in text
    assert text.count("event: response.completed\n") == 1


def test_the_stream_helper_and_the_asynchronous_client_gather_the_same(thinker, client):
    with client(thinker).responses.stream(**ASK) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == "three é four"
        assert stream.get_final_response().output_text == "three é four"

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{thinker.url}/v1", api_key="none", max_retries=0) as asked:
            whole = await asked.responses.create(**ASK)
            return whole.output_text, [event.type async for event in await asked.responses.create(**ASK, stream=True)]

    text, kinds = asyncio.run(ask())
    assert (text, kinds[-1]) == ("three é four", "response.completed")


def test_items_of_earlier_turns_come_back_into_the_prompt(caller, client):
    first = client(caller).responses.create(**ASK, tools=[LOOK], include=["reasoning.encrypted_content"])
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": [{"type": "input_text", "text": "a mat"}]}

    def count(*items):
        given = [{"role": "user", "content": "the cat"}, *items, result]
        return client(caller).responses.input_tokens.count(model="tiny", input=given, tools=[LOOK]).input_tokens

    items = [item.model_dump(exclude_none=True) for item in first.output]
    hidden = [{key: value for key, value in items[0].items() if key != "content"}, *items[1:]]
    assert count(*items) == count(*hidden) > count(*items[1:])
    chat = [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "two", "reasoning_content": "one",
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": first.output[-1].arguments}}]},
        {"role": "tool", "tool_call_id": "c", "content": "a mat"},
    ]  # fmt: skip
    tool = {"type": "function", "function": {key: value for key, value in LOOK.items() if key != "type"}}
    same = client(caller).chat.completions.create(model="tiny", messages=chat, tools=[tool], max_tokens=1)
    assert same.usage.prompt_tokens == count(*items)
    told = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "the cat"}]},
    ]
    instructed = client(caller).responses.input_tokens.count(model="tiny", input="the cat", instructions="Be brief.")
    assert client(caller).responses.input_tokens.count(model="tiny", input=told).input_tokens == instructed.input_tokens


def test_functions_of_a_namespace_are_called_as_the_client_knows_them(client):
    space = {"type": "namespace", "name": "eyes", "description": "Sees.", "tools": [LOOK]}
    ask = ASK | {"tools": [space], "tool_choice": "required", "reasoning": {"effort": "none"}, "max_output_tokens": 60}
    with serving(*random_model(context=2048)) as running:
        (found,) = client(running).responses.create(**ask, parallel_tool_calls=False).output
        assert (found.name, found.namespace) == ("look", "eyes")
        (event,) = [event for event in client(running).responses.create(**ask, stream=True) if event.type == "response.output_item.added"][
            :1
        ]
        assert (event.item.name, event.item.namespace) == ("look", "eyes")

        def count(name, **others):
            item = {"type": "function_call", "call_id": "c", "name": name, "arguments": "{}", **others}
            given = [{"role": "user", "content": "the cat"}, item, {"type": "function_call_output", "call_id": "c", "output": "a mat"}]
            return client(running).responses.input_tokens.count(model="tiny", input=given, tools=[space]).input_tokens

        assert count("look", namespace="eyes") == count("eyes.look") > count("look")


def test_thinking_is_switched_off_and_an_answer_that_is_cut_says_so(thinker, client):
    create = client(thinker).responses.create
    response = create(**ASK, reasoning={"effort": "none"})
    assert [item.type for item in response.output] == ["message"]
    cut = create(**ASK, max_output_tokens=5)
    assert (cut.status, cut.incomplete_details.reason, cut.output[-1].status) == ("incomplete", "max_output_tokens", "incomplete")
    events = list(create(**ASK, max_output_tokens=5, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output[-1].status == "incomplete"


def test_logprobs_come_with_the_text(thinker, client):
    ask = ASK | {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    logprobs = client(thinker).responses.create(**ask).output[-1].content[0].logprobs
    assert b"".join(bytes(entry.bytes) for entry in logprobs).decode().strip().startswith("three é four")
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs)
    events = list(client(thinker).responses.create(**ask, stream=True))
    (done,) = (event for event in events if event.type == "response.output_text.done")
    assert [entry.token for entry in done.logprobs] == [entry.token for entry in logprobs]
    assert "three" in "".join(entry.token for event in events if event.type == "response.output_text.delta" for entry in event.logprobs)


def test_calls_and_schemas_are_kept_to_by_a_model_that_would_write_anything():
    class Mood(pydantic.BaseModel):
        mood: Literal["good", "bad"]

    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"], "additionalProperties": False}
    feel = {"type": "function", "name": "feel", "parameters": schema, "strict": True}
    quiet = {"model": "tiny", "input": "the cat", "reasoning": {"effort": "none"}, "max_output_tokens": 200}
    with serving(*random_model(context=2048)) as running:
        responses = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0).responses
        parsed = responses.parse(**quiet, text_format=Mood)
        assert parsed.output_parsed.mood in ("good", "bad")
        assert parsed.text.format.name == "Mood"
        assert responses.create(**quiet, text={"format": {"type": "json_object"}}).output_text.startswith("{")
        for choice in (
            "required",
            {"type": "function", "name": "feel"},
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "feel"}]},
        ):
            tools = [feel] if choice == "required" else [LOOK, feel]
            (call,) = responses.create(**quiet, tools=tools, tool_choice=choice, parallel_tool_calls=False).output
            assert (call.type, call.name, json.loads(call.arguments)["mood"] in ("good", "bad")) == ("function_call", "feel", True)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content"),
        ({"input": [{"type": "function_call", "name": "look"}]}, "input.0"),
        ({"input": []}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"reasoning": {"effort": "furious"}}, "reasoning.effort"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_is_not_done_here_is_a_400_that_names_the_field(tiny, client, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client(tiny).responses.create(**ASK | changes)
    assert (caught.value.param or "").startswith(param)


def test_a_stream_that_breaks_ends_with_a_failed_response(client):
    with serving(*random_model(), settings=Settings(keep_alive_s=0.05)) as running:
        step = running.engine.runner.step

        def failing(sequences):
            if len(sequences[0].token_ids) > 2:
                raise RuntimeError("secret details")
            return step(sequences)

        running.engine.runner.step = failing
        events = list(client(running).responses.create(**ASK, stream=True))
        assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "server_error")
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "secret" not in events[-1].response.error.message
        with pytest.raises(openai.InternalServerError, match="failed at this request"):
            client(running).responses.create(**ASK)
