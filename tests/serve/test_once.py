"""A request that is sent again under one key is answered once."""

import threading
import time

import httpx2
import pytest
from served import random_model, serving

from spoutnik.serve.errors import ConflictError, InvalidRequestError
from spoutnik.serve.once import KEPT_S, MOST_BYTES, Answered

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 8}
PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "tiny", "prompt": "the cat", "max_tokens": 8},
    "/v1/responses": {"model": "tiny", "input": "the cat", "max_output_tokens": 8},
    "/v1/messages": CHAT,
}


def post(running, path, body, key="one"):
    return httpx2.post(f"{running.url}{path}", json=body, headers={"idempotency-key": key}, timeout=20)


@pytest.mark.parametrize("path", PATHS)
def test_the_same_request_under_the_same_key_is_answered_once(tiny, path):
    key, body = f"key of {path}", PATHS[path]
    first, again, other = (post(tiny, path, body, one) for one in (key, key, f"other {key}"))
    assert (first.status_code, again.json(), again.headers["idempotent-replayed"]) == (200, first.json(), "true")
    assert other.json()["id"] != first.json()["id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    changed = post(tiny, path, body | {"temperature": 0}, key)
    assert (changed.status_code, "another request" in changed.text) == (400, True)


def test_streams_and_errors_are_not_kept(tiny):
    streamed = [post(tiny, "/v1/chat/completions", CHAT | {"stream": True}, "stream") for _ in range(2)]
    assert streamed[0].text.splitlines()[0] != streamed[1].text.splitlines()[0]
    assert all("[DONE]" in response.text for response in streamed)
    assert [post(tiny, "/v1/chat/completions", CHAT | {"model": "other"}, "error").status_code for _ in range(2)] == [404, 404]
    assert post(tiny, "/v1/chat/completions", CHAT, "error").status_code == 200
    assert post(tiny, "/v1/chat/completions", CHAT, "x" * 256).status_code == 400


def test_a_request_under_way_is_told_to_come_back_and_one_whose_client_left_begins_anew():
    with serving(*random_model()) as running:
        step, going = running.engine.runner.step, threading.Event()

        def waiting(sequences):
            time.sleep(0.01)
            return [] if not going.is_set() else step(sequences)

        running.engine.runner.step = waiting
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{running.url}/v1/chat/completions", json=CHAT, headers={"idempotency-key": "k"}, timeout=0.3)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(post(running, "/v1/chat/completions", CHAT, "k")))
        end = time.monotonic() + 20
        while running.service.active:
            assert time.monotonic() < end
            time.sleep(0.01)
        asking.start()
        while not running.service.backend.load().running:
            assert time.monotonic() < end
            time.sleep(0.01)
        refused = post(running, "/v1/chat/completions", CHAT, "k")
        assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
        going.set()
        asking.join()
        assert post(running, "/v1/chat/completions", CHAT, "k").json() == answers[0].json()


def test_what_is_kept_is_bounded_in_time_and_size():
    now = 0.0
    answered = Answered(lambda: now)
    keys = [("", "/", str(number)) for number in range(3)]
    assert answered.begin(keys[0], b"a") is None
    with pytest.raises(ConflictError):
        answered.begin(keys[0], b"a")
    answered.end(keys[0], b"answer")
    assert answered.begin(keys[0], b"a") == b"answer"
    with pytest.raises(InvalidRequestError):
        answered.begin(keys[0], b"b")
    assert answered.begin(("other", "/", "0"), b"b") is None, "each caller has its own keys"
    now = KEPT_S + 1
    assert answered.begin(keys[0], b"b") is None
    for key in keys[1:]:
        answered.begin(key, b"a")
        answered.end(key, bytes(MOST_BYTES // 2 + 1))
    assert answered.begin(keys[1], b"a") is None, "the oldest went"
    assert answered.begin(keys[2], b"a") is not None
