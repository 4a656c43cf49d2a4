"""No word of a prompt or an answer stands in logs, metrics or what strangers are told, whatever goes wrong."""

import asyncio
import io
import json
import logging
import subprocess
import sys

import httpx2
import pytest
from served import random_model, scripted, serving

from spoutnik.serve.logs import NOT_SHOWN, JsonFormatter
from spoutnik.serve.settings import Settings

CANARY = "kestrl-7136"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 8}


@pytest.fixture
def logged():
    """All that is logged in this process, as the server writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def post(running, path, body, **settings):
    return httpx2.post(f"{running.url}{path}", json=body, timeout=60, **settings)


def test_what_is_asked_and_answered_stands_nowhere(logged):
    with serving(*scripted(f"one two</think> {CANARY}\n"), settings=Settings(max_tokens=20)) as running:
        for stream in (True, False):
            answer = post(
                running, "/v1/chat/completions", CHAT | {"stream": stream, "user_id": CANARY, "logprobs": True, "top_logprobs": 2}
            )
            assert answer.status_code == 200
            text = {"model": "tiny", "prompt": f"{CANARY} one two</think>\n", "echo": True, "max_tokens": 4, "stop": [CANARY]}
            assert CANARY in post(running, "/v1/completions", text).json()["choices"][0]["text"]
        post(running, "/v1/embeddings", {"model": "tiny", "input": CANARY})
        for body in (
            CHAT | {"max_tokens": CANARY}, CHAT | {"model": CANARY}, CHAT | {"tools": [{"type": CANARY}]},
            CHAT | {"reasoning_effort": CANARY},
            CHAT | {"messages": [{"role": CANARY, "content": CANARY}]}, CHAT | {"chat_template_kwargs": {CANARY: CANARY}},
            CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": CANARY}}}},
            CHAT | {"messages": [{"role": "user", "content": CANARY * 1000}]},
        ):  # fmt: skip
            post(running, "/v1/chat/completions", body)
        httpx2.post(f"{running.url}/v1/chat/completions", content=f'{{"{CANARY}'.encode(), headers={"content-type": "application/json"})
        httpx2.get(f"{running.url}/v1/models/{CANARY}")
        httpx2.get(f"{running.url}/{CANARY}", params={CANARY: CANARY}, headers={"x-request-id": CANARY, "user-agent": CANARY})
        metrics = httpx2.get(f"{running.url}/metrics").text
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert len([line for line in lines if line["message"] == "answered"]) == 5
    assert CANARY not in logged.getvalue()
    assert CANARY not in metrics


def test_a_fault_of_the_program_is_logged_without_its_words_and_not_described_to_strangers(logged, monkeypatch):
    with serving(*random_model()) as running:

        def fail(*arguments, **settings):
            raise KeyError(f"cannot work with {CANARY}")

        with monkeypatch.context() as broken:
            broken.setattr(running.engine, "step", fail)
            answer = post(running, "/v1/chat/completions", CHAT)
            assert (answer.status_code, CANARY in answer.text) == (500, False)
        monkeypatch.setattr("spoutnik.serve.openai.chat.read_conversation", fail)
        answer = post(running, "/v1/chat/completions", CHAT)
        assert (answer.status_code, CANARY in answer.text) == (500, False)
        assert answer.headers["x-request-id"]
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert any(line.get("exception") == "KeyError" and "fail" in line["traceback"][-1] for line in lines)
    assert CANARY not in logged.getvalue()


def test_what_asyncio_says_of_tasks_that_nobody_awaits_is_not_shown(logged):
    async def fail():
        raise ValueError(CANARY)

    async def forget():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda text: 1 / 0, CANARY)
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        del task

    asyncio.run(forget())
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert {line.get("exception") for line in lines if line["logger"] == "asyncio"} >= {"ZeroDivisionError"}
    assert CANARY not in logged.getvalue()


def test_a_replica_in_a_process_of_its_own_keeps_silent_as_well():
    program = f"""
import logging
from spoutnik.recipe.tables import Price
from spoutnik.serve.opening import Opening
from spoutnik.serve.ray_backend import ReplicaActor
ReplicaActor(Opening("tiny"), Price())
logging.getLogger("elsewhere").error("{CANARY}")
try:
    raise ValueError("{CANARY}")
except ValueError:
    logging.getLogger("spoutnik.serve.worker").exception("a step failed")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["message"] for line in lines] == [NOT_SHOWN, "a step failed"]
    assert CANARY not in ended.stderr
