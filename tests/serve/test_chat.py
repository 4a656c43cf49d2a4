"""Conversations with OpenAI's own client: the answers are those of the engine alone, whole and streamed, with DeepSeek's fields."""

import asyncio
import json
from typing import Literal

import httpx2
import openai
import pydantic
import pytest
from served import CALL, random_model, scripted, serving
from tiny_adapters import matrices, write_adapter

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.library import Model
from spoutnik.serve.settings import Settings

ASK = [{"role": "user", "content": "the cat"}]


def alone(running, messages=ASK, **settings):
    """What the engine answers to nobody else."""
    answer = Model(running.engine.model, running.engine.tokenizer).chat(messages, **settings)
    return (answer.reasoning or "").strip(), answer.text.lstrip(), answer


def test_an_answer_is_that_of_the_engine_alone(tiny, client):
    response = client(tiny).chat.completions.create(model="tiny", messages=ASK, max_tokens=40, seed=4)
    reasoning, text, answer = alone(tiny, max_new_tokens=40, seed=4)
    message = response.choices[0].message
    assert (message.reasoning_content, message.content) == (reasoning, text)
    assert response.choices[0].finish_reason == {"stop": "stop", "length": "length"}[answer.finish_reason]
    usage = response.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (answer.prompt_tokens, len(answer.token_ids))
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens
    assert usage.cost["cpu_seconds"] > 0
    assert response._request_id.startswith("req_")


def test_a_stream_joins_to_the_whole_answer_and_ends_with_its_usage(thinker, client):
    chunks = list(
        client(thinker).chat.completions.create(
            model="tiny", messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    whole = client(thinker).chat.completions.create(model="tiny", messages=ASK, temperature=0)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert (
        "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        == whole.choices[0].message.reasoning_content
        == "one two"
    )
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content == "three é four"
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert 2 <= chunks[-1].usage.completion_tokens_details.reasoning_tokens < whole.usage.completion_tokens
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_requests_side_by_side_are_answered_as_alone(tiny):
    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
            asked = [client.chat.completions.create(model="tiny", messages=ASK, max_tokens=24, seed=seed) for seed in range(12)]
            return await asyncio.gather(*asked)

    for seed, response in enumerate(asyncio.run(ask_all())):
        reasoning, text, _ = alone(tiny, max_new_tokens=24, seed=seed)
        message = response.choices[0].message
        assert (getattr(message, "reasoning_content", ""), message.content) == (reasoning, text)


def test_several_answers_differ_and_share_one_prompt_in_the_usage(tiny, client):
    response = client(tiny).chat.completions.create(model="tiny", messages=ASK, max_tokens=16, seed=1, n=3)
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert len({choice.message.reasoning_content for choice in response.choices}) == 3
    assert response.usage.completion_tokens > 16
    assert response.usage.prompt_tokens == alone(tiny, max_new_tokens=1)[2].prompt_tokens


def test_thinking_is_switched_off_by_deepseeks_field_by_effort_and_by_name(thinker, client):
    chat = client(thinker).chat.completions.create
    for changes in (
        {"extra_body": {"thinking": {"type": "disabled"}}},
        {"reasoning_effort": "none"},
        {"model": "deepseek-chat"},
    ):
        message = chat(**{"model": "tiny", "messages": ASK, "temperature": 0, **changes}).choices[0].message
        assert (getattr(message, "reasoning_content", None), message.content) == (None, "one two</think> three é four")


def test_a_prefix_is_gone_on_from(thinker, client):
    messages = [*ASK, {"role": "assistant", "content": "\n", "prefix": True}]
    message = client(thinker).chat.completions.create(model="tiny", messages=messages, temperature=0).choices[0].message
    assert message.content == "one two</think> three é four"
    messages[-1] = {"role": "assistant", "content": "", "reasoning_content": "one", "prefix": True}
    message = client(thinker).chat.completions.create(model="tiny", messages=messages, temperature=0).choices[0].message
    assert (message.reasoning_content, message.content) == ("two", "three é four")


def test_logprobs_come_with_every_token_of_answer_and_thinking(thinker, client):
    settings = {"model": "tiny", "messages": ASK, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    response = client(thinker).chat.completions.create(**settings)
    logprobs = response.choices[0].logprobs
    assert b"".join(bytes(entry.bytes) for entry in logprobs.content).decode().strip().startswith("three é four")
    assert "".join(entry["token"] for entry in logprobs.reasoning_content).startswith("one two")
    assert all(len(entry.top_logprobs) == 2 and entry.logprob == entry.top_logprobs[0].logprob for entry in logprobs.content)
    streamed = [chunk.choices[0].logprobs for chunk in client(thinker).chat.completions.create(**settings, stream=True)]
    assert [entry for some in streamed if some for entry in some.content or []] == logprobs.content


TOOLS = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def caller():
    with serving(*scripted("one</think> two" + "".join(CALL))) as running:
        yield running


def test_a_call_is_taken_out_of_the_answer_whole_and_streamed(caller, client):
    chat = client(caller).chat.completions.create
    choice = chat(model="tiny", messages=ASK, tools=TOOLS, temperature=0).choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.reasoning_content) == ("tool_calls", "two", "one")
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": [1, "é"]})
    deltas = [chunk.choices[0].delta for chunk in chat(model="tiny", messages=ASK, tools=TOOLS, temperature=0, stream=True)]
    parts = [call for delta in deltas for call in delta.tool_calls or []]
    assert [part.function.name for part in parts if part.id] == ["look"]
    assert "".join(part.function.arguments or "" for part in parts) == call.function.arguments
    assert chat(model="tiny", messages=ASK, temperature=0).choices[0].message.content == "two" + "".join(CALL)


def test_a_round_of_tools_comes_back_into_the_prompt_with_its_reasoning(caller, client):
    chat = client(caller).chat.completions.create
    first = chat(model="tiny", messages=ASK, tools=TOOLS, temperature=0).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "a mat"}
    messages = [*ASK, first.model_dump(exclude_none=True), result]
    second = chat(model="tiny", messages=messages, tools=TOOLS, temperature=0)
    without = {"role": "assistant", "content": first.content, "tool_calls": first.model_dump()["tool_calls"]}
    third = chat(model="tiny", messages=[*ASK, without, result], tools=TOOLS, temperature=0)
    assert second.usage.prompt_tokens > third.usage.prompt_tokens > 0


def test_r1s_rule_refuses_reasoning_and_v4s_strict_rule_demands_it():
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    silent = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "a mat"}
    for rule, messages, status in (
        ("r1", [*ASK, {"role": "assistant", "content": "two", "reasoning_content": "one"}, *ASK], 400),
        ("r1", [*ASK, {"role": "assistant", "content": "two"}, *ASK], 200),
        ("v4-strict", [*ASK, silent, result], 400),
        ("v4-strict", [*ASK, silent | {"reasoning_content": "one"}, result], 200),
    ):
        with serving(*scripted("one</think> two"), settings=Settings(reasoning_input=rule)) as running:
            body = {"model": "tiny", "messages": messages, "tools": TOOLS, "max_tokens": 4}
            response = httpx2.post(f"{running.url}/chat/completions", json=body)
            assert response.status_code == status, response.text
            assert (status == 200) or "reasoning_content" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages.0.content"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
        ({"reasoning_effort": "furious"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "assistant", "content": "x", "prefix": True}, *ASK]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "cat " * 600}]}, "messages"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ],
)
def test_a_faulty_request_is_a_400_that_names_the_field(tiny, changes, param):
    response = httpx2.post(f"{tiny.url}/v1/chat/completions", json={"model": "tiny", "messages": ASK, **changes})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_unknown_fields_are_ignored_and_unknown_models_are_not_found(tiny, client):
    body = {"model": "tiny", "messages": ASK, "max_tokens": 2, "metadata": {"a": "b"}, "nonsense": [1]}
    assert httpx2.post(f"{tiny.url}/chat/completions", json=body).status_code == 200
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client(tiny).chat.completions.create(model="other", messages=ASK)
    assert [model.id for model in client(tiny).models.list()] == ["tiny"]
    assert client(tiny).models.retrieve("tiny").id == "tiny"


@pytest.mark.parametrize("stream", [True, False])
def test_json_and_calls_are_made_by_a_model_that_would_write_anything(tiny, client, stream):
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"], "additionalProperties": False}
    quiet = {"model": "tiny", "messages": ASK, "max_tokens": 200, "extra_body": {"thinking": {"type": "disabled"}}, "stream": stream}
    form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema, "strict": True}}
    tool = {"type": "function", "function": {"name": "feel", "parameters": schema}}

    def answer(**settings):
        response = client(tiny).chat.completions.create(**quiet, **settings)
        if not stream:
            message = response.choices[0].message
            return message.content, [(call.function.name, call.function.arguments) for call in message.tool_calls or []]
        deltas = [chunk.choices[0].delta for chunk in response]
        calls = [call.function for delta in deltas for call in delta.tool_calls or []]
        names = [call.name for call in calls if call.name]
        return "".join(delta.content or "" for delta in deltas), [(names[0], "".join(call.arguments for call in calls))] if names else []

    for seed in range(3):
        content, calls = answer(response_format=form, seed=seed)
        assert (json.loads(content)["mood"] in ("good", "bad"), calls) == (True, [])
        content, calls = answer(tools=[tool], tool_choice="required", parallel_tool_calls=False, seed=seed)
        assert (content or "", calls[0][0], json.loads(calls[0][1])["mood"] in ("good", "bad")) == ("", "feel", True)


def test_a_budget_ends_the_thinking(tiny, client):
    effort = {"model": "tiny", "messages": ASK, "max_tokens": 60, "seed": 4}
    response = client(tiny).chat.completions.create(**effort, extra_body={"thinking": {"type": "enabled", "budget_tokens": 7}})
    details = response.usage.completion_tokens_details
    assert 7 <= details.reasoning_tokens < 14
    assert response.choices[0].message.content


def test_where_max_tokens_counts_the_answer_alone_the_thinking_has_its_own_budget(client):
    ask = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 2}
    with serving(*scripted("one two three</think> four five six")) as running:
        all_counted = client(running).chat.completions.create(**ask).choices[0]
    with serving(*scripted("one two three</think> four five six"), settings=Settings(max_tokens_count="answer")) as running:
        answer_counted = client(running).chat.completions.create(**ask).choices[0]
        budget = {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1}}}
        bounded = client(running).chat.completions.create(**ask, **budget).choices[0].message
        whole = client(running).chat.completions.create(**ask | {"max_tokens": 60}).choices[0]
        off = client(running).chat.completions.create(**ask, reasoning_effort="none").choices[0]
    assert (all_counted.message.content, all_counted.finish_reason) == ("", "length")
    assert (answer_counted.message.reasoning_content, answer_counted.finish_reason) == ("one two three", "length")
    assert (answer_counted.message.content, off.message.content) == ("four five", "one two")
    assert bounded.reasoning_content == "one"
    assert (whole.message.content, whole.finish_reason) == ("four five six", "stop")


def test_a_strict_call_fits_though_the_model_would_write_another(caller, client):
    schema = {"type": "object", "properties": {"at": {"enum": ["mat"]}}, "required": ["at"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    chat = client(caller).chat.completions.create
    for strict, given in ((False, {"at": [1, "é"]}), (True, {"at": "mat"})):
        tools = [{**tool, "function": tool["function"] | {"strict": strict}}]
        choice = chat(model="tiny", messages=ASK, tools=tools, temperature=0, max_tokens=80).choices[0]
        assert (choice.finish_reason, choice.message.content, choice.message.reasoning_content) == ("tool_calls", "two", "one")
        assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [given]


def test_the_clients_own_parser_reads_a_pydantic_answer(tiny, client):
    class Mood(pydantic.BaseModel):
        mood: Literal["good", "bad"]

    response = client(tiny).chat.completions.parse(
        model="tiny", messages=ASK, response_format=Mood, max_tokens=100, reasoning_effort="none", seed=1
    )
    assert response.choices[0].message.parsed.mood in ("good", "bad")


def test_a_schema_is_bounded_and_must_be_there(tiny):
    deep = {"type": "object"}
    for _ in range(40):
        deep = {"properties": {"a": deep}}
    for schema, words in (
        (deep, "deeper"),
        ({"enum": ["x" * 70_000]}, "at most 65536"),
        (None, "holds none"),
        ({"type": "nope"}, "simplify"),
    ):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        response = httpx2.post(f"{tiny.url}/v1/chat/completions", json={"model": "tiny", "messages": ASK, "response_format": form})
        assert (response.status_code, words in response.json()["error"]["message"]) == (400, True), response.text


def test_what_is_cached_of_one_user_is_not_found_for_another(tiny, client):
    messages = [{"role": "user", "content": "the cat sat on the mat and thought " * 4}]

    def hits(**extra):
        response = client(tiny).chat.completions.create(model="tiny", messages=messages, max_tokens=1, extra_body=extra)
        return response.usage.prompt_cache_hit_tokens

    assert [hits(user_id="a"), hits(user_id="b"), hits()] == [0, 0, 0]
    assert min(hits(user_id="a"), hits(user_id="b"), hits()) >= 32


def test_an_adapter_answers_under_its_name(tmp_path, client):
    model, tokenizer = random_model()
    folder = write_adapter(tmp_path / "red", matrices(model, lambda name: name.endswith("o_proj"), seed=1, std=0.5))
    with serving(model, tokenizer, adapters=["red"]) as running:
        running.engine.add_adapter("red", read_adapter(folder, model))
        assert [one.id for one in client(running).models.list()] == ["tiny", "red"]
        answers = {name: client(running).completions.create(model=name, prompt="the cat", max_tokens=9, seed=1) for name in ("tiny", "red")}
        alone = Model(model, tokenizer)
        assert answers["tiny"].choices[0].text == alone.generate(["the cat"], 9, seed=1)[0].text != answers["red"].choices[0].text
        assert answers["red"].model == "red"
        with pytest.raises(openai.BadRequestError, match="base model"):
            client(running).embeddings.create(model="red", input="the cat")


@pytest.mark.parametrize("name", ["template", "self", "write", "messages_", "a b", ""])
def test_a_variable_of_the_template_may_have_any_name_of_the_programs(tiny, client, name):
    answer = client(tiny).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "the cat"}], max_tokens=1, extra_body={"chat_template_kwargs": {name: "x"}}
    )
    assert answer.choices[0].finish_reason == "length"
