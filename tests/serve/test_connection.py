"""A connection that brings too much, too slowly, or takes too little is closed, and others do not notice."""

import json
import socket
import time

import httpx2
import pytest
from served import random_model, scripted, serving

from spoutnik.serve.settings import Settings

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def hasty():
    """A server without patience."""
    settings = Settings(head_s=0.4, body_s=0.4, write_s=0.4, most_connections=8, most_head_bytes=10_000)
    with serving(*random_model(), settings=settings) as running:
        yield running


def connect(running):
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def end_of(connection) -> bytes:
    """All that comes until the server closes."""
    received = b""
    try:
        while some := connection.recv(65536):
            received += some
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("sent", [b"", b"POST /v1/comp", HEAD], ids=["nothing", "half a line", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(hasty, sent):
    with connect(hasty) as connection:
        connection.sendall(sent)
        assert end_of(connection) == b""


def test_a_head_that_comes_in_drops_ends_the_connection(hasty):
    with connect(hasty) as connection:
        connection.sendall(HEAD)
        try:
            while True:
                connection.sendall(b"x: y\r\n")
                time.sleep(0.05)
        except OSError:
            pass


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["no body", "half a body"])
def test_a_body_that_does_not_come_is_a_408_in_the_dialects_shape(hasty, sent):
    with connect(hasty) as connection:
        connection.sendall(HEAD + b"content-type: application/json\r\ncontent-length: 20\r\n\r\n" + sent)
        head, _, body = end_of(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head.lower()
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_head_of_any_size_is_not_read(hasty):
    with connect(hasty) as connection:
        connection.sendall(HEAD)
        try:
            for _ in range(1000):
                connection.sendall(b"x: " + b"y" * 1000 + b"\r\n")
        except OSError:
            pass
        answer = end_of(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer
    assert httpx2.get(f"{hasty.url}/health", headers={"x": "y" * 5000}).status_code == 200


def test_more_connections_than_bounded_are_turned_away_and_places_come_back(hasty):
    held = [connect(hasty) for _ in range(hasty.service.settings.most_connections)]
    time.sleep(0.1)
    with connect(hasty) as one_more:
        assert end_of(one_more) == b""
    for connection in held:
        assert end_of(connection) == b""
        connection.close()
    assert httpx2.get(f"{hasty.url}/health").status_code == 200


def test_a_client_that_reads_nothing_frees_what_answers_it():
    with serving(*scripted("five six\n", context=200_000), settings=Settings(write_s=0.3, max_tokens=190_000)) as running:
        connection = connect(running)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        body = json.dumps({"model": "tiny", "prompt": "\n", "stream": True, "max_tokens": 190_000, "n": 4}).encode()
        connection.sendall(HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        while not running.service.backend.load().running:
            time.sleep(0.01)
        end = time.monotonic() + 60
        while running.service.backend.load().running:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert running.service.metrics.answers.labels("cancelled")._value.get() == 4
        connection.close()


def test_requests_behind_one_another_on_one_connection_outlast_the_time_for_heads(hasty):
    """An answer that takes longer than a head may is not cut off, whether it is the first on its connection or comes in line."""
    body = json.dumps({"model": "tiny", "prompt": ["the cat"] * 40, "max_tokens": 100, "logit_bias": {"0": -100}}).encode()
    request = HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with connect(hasty) as connection:
        connection.sendall(request + request)
        assert end_of(connection).count(b"HTTP/1.1 200 ") == 2
