"""The engine's thread: whoever leaves frees the engine, a full line says when to come back, a failing step ends all and the server goes on."""

import json
import threading
import time

import httpx2
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


def leave(running, stream: bool):
    """Asks, waits until the answer is under way, and hangs up."""
    with httpx2.Client() as client:
        if stream:
            with client.stream("POST", f"{running.url}/v1/chat/completions", json=ASK | {"stream": True}) as response:
                lines = response.iter_lines()
                next(line for line in lines if '"content"' in line and "five" in line or "reasoning" in line)
        else:
            with pytest.raises(httpx2.ReadTimeout):
                client.post(
                    f"{running.url}/v1/completions", json={"model": "tiny", "prompt": "\n", "max_tokens": 1000, "n": 2}, timeout=0.3
                )


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_ends_when_its_client_leaves(endless, stream):
    leave(endless, stream)
    until(lambda: idle(endless))


def test_a_client_that_leaves_the_line_is_forgotten(endless):
    with httpx2.Client() as client:
        with client.stream("POST", f"{endless.url}/v1/chat/completions", json=ASK | {"stream": True, "n": 2}) as first:
            next(first.iter_lines())
            until(lambda: load(endless).running == 2)
            with pytest.raises(httpx2.ReadTimeout):
                client.post(f"{endless.url}/v1/completions", json={"model": "tiny", "prompt": "x"}, timeout=0.3)
            until(lambda: load(endless).waiting == 0)
    until(lambda: idle(endless))


def test_a_full_line_is_told_when_to_come_back_and_those_in_line_that_they_are_not_forgotten(endless):
    with httpx2.Client() as client, httpx2.Client() as other:
        with client.stream("POST", f"{endless.url}/v1/chat/completions", json=ASK | {"stream": True, "n": 2}) as first:
            next(first.iter_lines())
            until(lambda: load(endless).running == 2)
            with other.stream("POST", f"{endless.url}/v1/chat/completions", json=ASK | {"stream": True}) as second:
                lines = second.iter_lines()
                until(lambda: load(endless).waiting == 1)
                refused = httpx2.post(f"{endless.url}/v1/chat/completions", json=ASK)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["code"] == "queue_full"
                assert next(line for line in lines if line.startswith(":")) == ": keep-alive"
            until(lambda: load(endless).waiting == 0)
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
        streamed = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"stream": True, "max_tokens": 8}).text
        assert '"server_error"' in streamed
        assert "secret" not in streamed
        assert "[DONE]" not in streamed
        again = httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"seed": 1, "max_tokens": 8}).json()
        assert again["choices"] == whole["choices"]
        failed.clear()
        assert httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | {"max_tokens": 8}).status_code == 500


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
