"""The engine's thread: who leaves frees the engine, a full line says when to come back, a failing step is not the end."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx2
import openai
import pytest
from served import random_model, scripted, serving

from spoutnik.serve.settings import Settings

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}]}
ENDLESS = "five six\n"


@pytest.fixture(scope="module")
def endless():
    """A server whose answers never end by themselves; two run at a time and one waits."""
    settings = Settings(keep_alive_s=0.05, max_tokens=190_000)
    with serving(*scripted(ENDLESS, context=200_000), settings=settings, max_batch=2, max_queue=1) as running:
        yield running


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def load(running):
    return running.service.backend.load()


def idle(running):
    return (load(running).running, load(running).waiting) == (0, 0)


@contextmanager
def asking(running, path, **body):
    """A request on a connection of its own, which is closed at the end."""
    content = json.dumps({"model": "tiny", **body}).encode()
    host, port = running.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + content)
        yield connection


CHAT, TEXT = ("/v1/chat/completions", {"messages": ASK["messages"]}), ("/completions", {"prompt": "\n", "max_tokens": 100_000})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "body"), [CHAT, TEXT], ids=["chat", "text"])
def test_an_answer_ends_when_its_client_leaves(endless, path, body, stream):
    with asking(endless, path, **body, stream=stream, n=2):
        until(lambda: load(endless).running == 2)
    until(lambda: idle(endless))


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_line_is_forgotten(endless, stream):
    with asking(endless, "/chat/completions", messages=ASK["messages"], n=2):
        until(lambda: load(endless).running == 2)
        with asking(endless, "/chat/completions", messages=ASK["messages"], stream=stream):
            until(lambda: load(endless).waiting == 1)
        until(lambda: load(endless).waiting == 0)
        assert load(endless).running == 2
    until(lambda: idle(endless))


def test_a_full_line_is_told_when_to_come_back_and_who_waits_that_it_is_not_forgotten(endless):
    with asking(endless, "/chat/completions", messages=ASK["messages"], n=2):
        until(lambda: load(endless).running == 2)
        with asking(endless, "/chat/completions", messages=ASK["messages"], stream=True) as waiting:
            until(lambda: load(endless).waiting == 1)
            refused = httpx2.post(f"{endless.url}/v1/chat/completions", json=ASK)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "queue_full"
            received = b""
            while b"\n: keep-alive\n\n" not in received:
                received += waiting.recv(1000)
    until(lambda: idle(endless))


def test_a_whole_answer_that_takes_long_is_preceded_by_blank_lines(endless):
    body = {"model": "tiny", "prompt": "\n", "max_tokens": 1500, "temperature": 0}
    text = httpx2.post(f"{endless.url}/v1/completions", json=body, timeout=60).text
    assert text.startswith("\n")
    assert json.loads(text)["choices"][0]["text"].startswith("five six\nfive six")


def test_a_failing_step_ends_all_requests_with_an_error_and_the_next_ones_are_answered():
    model, tokenizer = random_model()
    with serving(model, tokenizer) as running:
        whole = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"seed": 1, "max_tokens": 8}).json()
        step, failed = running.engine.runner.step, threading.Event()

        def failing(sequences):
            if not failed.is_set() and len(sequences[0].token_ids) == 2:
                failed.set()
                raise RuntimeError("secret details")
            return step(sequences)

        running.engine.runner.step = failing
        streamed = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"seed": 1, "stream": True, "max_tokens": 8}).text
        assert '"server_error"' in streamed
        assert "secret" not in streamed
        assert "[DONE]" not in streamed
        again = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"seed": 1, "max_tokens": 8}).json()
        assert again["choices"] == whole["choices"]
        failed.clear()
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match="failed at this request"):
            list(client.chat.completions.create(**ASK, seed=1, max_tokens=8, stream=True))
        failed.clear()
        assert httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"seed": 1, "max_tokens": 8}).status_code == 500


def test_costs_are_shared_and_nothing_is_paid_twice(tiny):
    body = ASK | {"max_tokens": 12}
    single = httpx2.post(f"{tiny.url}/v1/chat/completions", json=body).json()["usage"]["cost"]
    assert single["cpu_seconds"] > 0
    assert single["energy_joules"] > 0
    assert single["energy_source"] in ("measured", "estimated")
    assert (single["money"], single["currency"]) == (0.0, "EUR")


def test_a_draining_server_takes_nothing_new_and_says_so():
    with serving(*random_model()) as running:
        running.service.draining = True
        assert httpx2.get(f"{running.url}/ready").status_code == 503
        assert httpx2.get(f"{running.url}/health").status_code == 200
        refused = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
