"""What every request passes: callers, hosts, pages of other sites, sizes; and errors in the dialect's shape, whatever goes wrong."""

import time

import httpx2
import pytest
from fastapi.routing import APIRoute
from served import random_model, serving

from spoutnik.serve.allowance import Allowance
from spoutnik.serve.auth import Balance, Principal
from spoutnik.serve.errors import RateLimitError, UnauthorisedError
from spoutnik.serve.settings import Settings

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2}


class OneKey:
    """Knows one caller."""

    required = True

    def __init__(self):
        self.admitted, self.charged, self.inside = [], [], 0

    async def authenticate(self, headers):
        if headers.get("authorization") != "Bearer right" and headers.get("x-api-key") != "right":
            raise UnauthorisedError("The key is missing or unknown.")
        return Principal("someone")

    def enter(self, principal):
        self.inside += 1

    def leave(self, principal):
        self.inside -= 1

    async def admit(self, principal, prompt_tokens, most_tokens):
        if most_tokens > 100:
            raise RateLimitError("Too many tokens a minute.", 7.2)
        self.admitted.append((principal.id, prompt_tokens, most_tokens))

    def charge(self, principal, usage):
        self.charged.append((principal.id, usage))

    async def balance(self, principal):
        return Balance("EUR", 12.345)

    def allowances(self, principal):
        return {"requests": Allowance(60, 59, 90.0)}

    async def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def keyed():
    with serving(*random_model(), authenticator=OneKey(), settings=Settings(most_body_bytes=2000)) as running:
        yield running


def routes(router, prefix=""):
    """Every (method, path) that is answered to."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield from ((method, prefix + route.path) for method in route.methods)
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router, prefix + route.include_context.prefix)


def test_every_route_but_two_needs_a_key(keyed):
    known = set(routes(keyed.app))
    assert {("POST", "/v1/chat/completions"), ("POST", "/beta/completions"), ("GET", "/user/balance"), ("GET", "/metrics")} < known
    for method, path in known:
        status = httpx2.request(method, keyed.url + path).status_code
        assert status == (200 if path in ("/health", "/ready") else 401), (method, path)


@pytest.mark.parametrize("headers", [{"authorization": "Bearer right"}, {"x-api-key": "right"}])
def test_both_headers_carry_a_key(keyed, headers):
    assert httpx2.get(f"{keyed.url}/v1/models", headers=headers).status_code == 200
    balance = httpx2.get(f"{keyed.url}/user/balance", headers=headers).json()
    assert balance["balance_infos"][0]["total_balance"] == "12.35" or balance["balance_infos"][0]["total_balance"] == "12.34"


def test_every_admitted_request_is_charged_once(keyed):
    keys, headers = keyed.service.authenticator, {"x-api-key": "right"}
    keys.admitted.clear(), keys.charged.clear()
    usage = httpx2.post(f"{keyed.url}/v1/chat/completions", json=ASK | {"n": 2}, headers=headers).json()["usage"]
    assert keys.admitted == [("someone", usage["prompt_tokens"], 4)]
    ((who, charged),) = keys.charged
    assert (who, charged.prompt_tokens, charged.completion_tokens) == ("someone", usage["prompt_tokens"], usage["completion_tokens"])
    assert charged.cost.cpu_seconds == usage["cost"]["cpu_seconds"] > 0
    text = {"model": "tiny", "prompt": ["the cat", "a"], "max_tokens": 3, "echo": True, "logprobs": 1, "stream": True}
    httpx2.post(f"{keyed.url}/v1/completions", json=text, headers=headers)
    assert [most for _, _, most in keys.admitted[1:]] == [0, 6]  # the scores of the prompts, and their continuations
    httpx2.post(f"{keyed.url}/v1/embeddings", json={"model": "tiny", "input": "the cat"}, headers=headers)
    assert len(keys.charged) == len(keys.admitted) == 4
    assert all(usage.cost.cpu_seconds > 0 for _, usage in keys.charged)
    refused = httpx2.post(f"{keyed.url}/v1/chat/completions", json=ASK | {"max_tokens": 101}, headers=headers)
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["error"]["type"]) == (429, "8", "rate_limit_error")
    assert len(keys.charged) == 4


def test_who_leaves_pays_for_what_was_made(keyed):
    keys = keyed.service.authenticator
    keys.charged.clear()
    body = ASK | {"max_tokens": 100, "stream": True}
    with httpx2.stream("POST", f"{keyed.url}/v1/chat/completions", json=body, headers={"x-api-key": "right"}) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
    end = time.monotonic() + 20
    while not keys.charged:
        assert time.monotonic() < end
    usage = keys.charged[0][1]
    assert 1 <= usage.completion_tokens <= 100
    assert usage.cost.cpu_seconds > 0


def test_a_large_body_is_refused_before_it_is_read(keyed):
    body = ASK | {"messages": [{"role": "user", "content": "x" * 3000}]}
    response = httpx2.post(f"{keyed.url}/v1/chat/completions", json=body, headers={"x-api-key": "right"})
    assert (response.status_code, response.json()["error"]["type"]) == (413, "invalid_request_error")
    pieces = httpx2.post(
        f"{keyed.url}/v1/chat/completions", content=(b"x" * 500 for _ in range(9)),
        headers={"x-api-key": "right", "content-type": "application/json"},
    )  # fmt: skip
    assert pieces.status_code == 413


def test_without_keys_only_this_machine_by_its_own_name_is_answered(tiny):
    assert httpx2.get(f"{tiny.url}/v1/models", headers={"host": "localhost:1"}).status_code == 200
    assert httpx2.get(f"{tiny.url}/v1/models", headers={"origin": tiny.url}).status_code == 200
    assert httpx2.get(f"{tiny.url}/v1/models", headers={"host": "rebound.example"}).status_code == 403
    assert httpx2.get(f"{tiny.url}/v1/models", headers={"host": "[::1"}).status_code == 403
    assert httpx2.get(f"{tiny.url}/v1/models", headers={"origin": "https://other.example"}).status_code == 403
    assert httpx2.get(f"{tiny.url}/health", headers={"host": "rebound.example"}).status_code == 200


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda url: httpx2.get(f"{url}/nowhere"), 404),
        (lambda url: httpx2.get(f"{url}/v1/chat/completions"), 405),
        (lambda url: httpx2.post(f"{url}/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}), 400),
        (lambda url: httpx2.post(f"{url}/v1/chat/completions", content=b"\xff", headers={"content-type": "application/json"}), 400),
        (lambda url: httpx2.post(f"{url}/v1/chat/completions", content=b'{"model": "tiny"}'), 400),
        (lambda url: httpx2.post(f"{url}/v1/chat/completions", content=b"[" * 100000, headers={"content-type": "application/json"}), 400),
        (lambda url: httpx2.post(f"{url}/v1/chat/completions", json=[]), 400),
    ],
    ids=["path", "method", "no JSON", "no text", "no content type", "deep", "no object"],
)
def test_errors_have_the_dialects_shape_and_an_id(tiny, send, status):
    response = send(tiny.url)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"] == response.headers["request-id"]


def test_metrics_count_what_was_answered(tiny):
    httpx2.post(f"{tiny.url}/v1/chat/completions", json=ASK)
    page = httpx2.get(f"{tiny.url}/metrics").text
    for name in ("requests_running", "requests_waiting", "time_to_first_token_seconds_count", "inter_token_seconds_sum"):
        assert f"spoutnik_{name}" in page
    assert 'spoutnik_answers_total{finish_reason="length"}' in page
    assert 'path="/chat/completions",status="200"' in page


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1000},
        {"top_logprobs": 1000, "logprobs": True},
        {"stop": ["x"] * 1000},
        {"stop": "x" * 100_000},
        {"logit_bias": {str(token): 1 for token in range(2000)}},
        {"tools": [{"function": {"name": f"f{number}"}} for number in range(1000)]},
        {"messages": [{"role": "user", "content": "x"}] * 5000},
        {"max_tokens": 10**30, "n": 1000},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 100_000]}}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_costs_every_step_is_bounded(tiny, changes):
    response = httpx2.post(f"{tiny.url}/v1/chat/completions", json=ASK | changes)
    assert response.status_code == 400, response.text[:300]
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_texts_asked_for_at_once_are_bounded(tiny):
    response = httpx2.post(f"{tiny.url}/v1/completions", json={"model": "tiny", "prompt": ["x"] * 1000})
    assert response.status_code == 400
    response = httpx2.post(f"{tiny.url}/v1/embeddings", json={"model": "tiny", "input": ["x"] * 1000})
    assert response.status_code == 400
