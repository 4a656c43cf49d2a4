"""Servers that several tests share, and clients for them."""

import openai
import pytest
from served import random_model, scripted, serving

PLAIN = "{% for message in messages %}{{ message['role'] ~ ': ' ~ message['content'] ~ '\n' }}{% endfor %}Assistant:\n"


@pytest.fixture(scope="session")
def tiny():
    """A server of a random model that thinks."""
    with serving(*random_model()) as running:
        yield running


@pytest.fixture(scope="session")
def thinker():
    """A server of a model that thinks "one two" and answers "three é four"."""
    with serving(*scripted("one two</think> three é four")) as running:
        yield running


def client_of(running, **settings) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, **settings)


@pytest.fixture
def client():
    """Makes clients."""
    return client_of
