"""Schemathesis makes requests of the server's own document, right and wrong ones, and holds every answer against it."""

import httpx2
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from served import random_model, serving

from spoutnik.serve.keys.keyring import Keyring
from spoutnik.serve.keys.store import KeyStore
from spoutnik.serve.settings import Settings


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server with keys, its key, and its document."""
    path = tmp_path_factory.mktemp("keys") / "keys.sqlite"
    store = KeyStore(path)
    _, secret = store.create()
    store.close()
    with serving(*random_model(), authenticator=Keyring(KeyStore(path), None), settings=Settings(max_tokens=4)) as running:
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx2.get(f"{running.url}/openapi.json").status_code == 401, "the document is for callers, too"
        yield running, headers, httpx2.get(f"{running.url}/openapi.json", headers=headers).json()


def failures(running, headers, document, examples, checks):
    """What schemathesis finds, with all of its checks and phases; every operation was asked."""
    config = SchemathesisConfig.from_dict(
        {
            "base-url": running.url, "headers": headers, "seed": 1, "continue-on-failure": True, "checks": checks,
            "generation": {"max-examples": examples, "database": "none"},
        }
    )  # fmt: skip
    found, asked = [], set()
    for event in from_schema(schemathesis.openapi.from_dict(document, config=config)).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            asked.add(event.label)
            for check in (check for checks in event.recorder.checks.values() for check in checks):
                if check.failure_info is not None:
                    found.append(f"{check.name}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}")
    operations = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert operations <= asked
    return found


def test_every_answer_is_one_that_the_document_knows(keyed):
    running, headers, document = keyed
    assert failures(running, headers, document, 2, {}) == []


def test_requests_that_reach_the_model_are_answered_or_refused_as_the_document_says(keyed):
    """With names that exist. What a schema cannot say (roles in an order that the template takes, a prefix in the last place, a text that
    has tokens) may then be refused with a 400; all other checks hold as they are.
    """
    running, headers, document = keyed
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": ["tiny", "deepseek-chat"]}
    accepted = {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404", "429", "5xx"]}}
    assert failures(running, headers, document, 2, accepted) == []
    assert running.service.metrics.responses.labels("POST", "/chat/completions", 200)._value.get() > 10, "else nothing was answered"
