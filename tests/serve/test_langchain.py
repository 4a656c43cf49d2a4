"""LangChain's clients of OpenAI's and DeepSeek's API: invoke, stream, tools, structured output, thinking, and its errors."""

import asyncio
from typing import Literal

import langchain_core.messages as messages
import openai
import pydantic
import pytest
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from served import CALL, random_model, scripted, serving


@pytest.fixture(scope="module")
def caller():
    with serving(*scripted("one</think> two" + "".join(CALL))) as running:
        yield running


@pytest.fixture(scope="module")
def loop():
    """One for all tests: the clients keep their connections in it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def deepseek(running, **settings):
    return ChatDeepSeek(model="tiny", api_key="none", api_base=f"{running.url}/v1", max_retries=0, **{"temperature": 0, **settings})


def chat(running, **settings):
    return ChatOpenAI(model="tiny", api_key="none", base_url=f"{running.url}/v1", max_retries=0, **{"temperature": 0, **settings})


CLIENTS = [deepseek, chat, lambda running, **settings: chat(running, use_responses_api=True, output_version="responses/v1", **settings)]


def text_of(message):
    return message.text if isinstance(message.text, str) else message.text()


@pytest.mark.parametrize("make", CLIENTS, ids=["deepseek", "openai", "responses"])
def test_invoke_stream_and_ainvoke_give_one_answer(thinker, make, loop):
    model = make(thinker)
    whole = model.invoke("the cat")
    assert text_of(whole) == "three é four"
    assert whole.usage_metadata["output_token_details"]["reasoning"] > 0
    chunks = list(model.stream("the cat"))
    gathered = chunks[0]
    for chunk in chunks[1:]:
        gathered += chunk
    assert text_of(gathered) == text_of(loop.run_until_complete(model.ainvoke("the cat"))) == "three é four"
    assert gathered.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_thinking_comes_as_reasoning(thinker):
    assert deepseek(thinker).invoke("the cat").additional_kwargs["reasoning_content"] == "one two"
    streamed = [chunk.additional_kwargs.get("reasoning_content", "") for chunk in deepseek(thinker).stream("the cat")]
    assert "".join(streamed) == "one two"
    (thought, _) = chat(thinker, use_responses_api=True, output_version="responses/v1").invoke("the cat").content
    assert (thought["type"], thought["content"][0]["text"]) == ("reasoning", "one two")


@pytest.mark.parametrize("make", CLIENTS, ids=["deepseek", "openai", "responses"])
def test_a_bound_tool_is_called_and_its_result_goes_back(caller, make):
    def look(at: list[str]) -> str:
        """Looks."""
        return str(at)

    model = make(caller).bind_tools([look])
    asked = [messages.HumanMessage("the cat")]
    answer = model.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("look", {"at": [1, "é"]})
    streamed = None
    for chunk in model.stream(asked):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(one["name"], one["args"]) for one in streamed.tool_calls] == [("look", {"at": [1, "é"]})]
    again = model.invoke([*asked, answer, messages.ToolMessage("a mat", tool_call_id=call["id"])])
    assert again.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]


class Mood(pydantic.BaseModel, extra="forbid"):
    """A mood."""

    mood: Literal["good", "bad"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("make", CLIENTS, ids=["deepseek", "openai", "responses"])
def test_structured_output_is_kept_to(roomy, make, method):
    effort = {"reasoning": {"effort": "none"}} if make is CLIENTS[2] else {"reasoning_effort": "none"}
    if make is deepseek:
        effort = {"extra_body": {"thinking": {"type": "disabled"}}}
    model = make(roomy, max_tokens=300, **effort).with_structured_output(Mood, method=method)
    assert model.invoke("the cat").mood in ("good", "bad")


@pytest.fixture(scope="module")
def roomy():
    with serving(*random_model(context=2048)) as running:
        yield running


@pytest.mark.parametrize("make", CLIENTS, ids=["deepseek", "openai", "responses"])
def test_errors_are_of_the_classes_that_its_users_catch(thinker, make):
    with pytest.raises(openai.BadRequestError, match="context holds 1024"):
        make(thinker).invoke("cat " * 3000)
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        make(thinker).bind(model="other").invoke("the cat")
