"""What `spoutnik connect` prints is what the client reads: each format is parsed, and what is a program is run against a server."""

import json
import shlex
import subprocess
import sys

import pytest
import yaml
from served import scripted, serving

from spoutnik.cli.connect import CLIENTS, Server, connect
from spoutnik.errors import UserError
from spoutnik.serve.keys.keyring import Keyring
from spoutnik.serve.keys.store import KeyStore

ODD = Server("http://127.0.0.1:8000", "sk-'\"$(touch x)\\", 'a "model": #1 é')


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server that asks for keys, and one of them."""
    path = tmp_path_factory.mktemp("keys") / "keys.sqlite"
    store = KeyStore(path)
    _, secret = store.create()
    store.close()
    with serving(*scripted("one two</think> three four"), authenticator=Keyring(KeyStore(path), None)) as running:
        yield running, secret


def printed(capsys, client, url, key):
    connect(client, url, key, "")
    return capsys.readouterr().out


@pytest.mark.parametrize("client", ["openai-sdk", "anthropic-sdk", "langchain", "curl"])
def test_a_program_gets_an_answer_of_a_server_that_was_asked_for_its_model(keyed, capsys, client):
    running, secret = keyed
    text = printed(capsys, client, url=f"{running.url}/v1/", key=secret)
    command = ["sh", "-c", text] if client == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    answer = json.loads(done.stdout)["choices"][0]["message"]["content"] if client == "curl" else done.stdout.strip()
    assert answer == "three four", done.stderr


def test_continue_reads_yaml():
    (model,) = yaml.safe_load(CLIENTS["continue"][1](ODD))["models"]
    assert (model["model"], model["apiBase"], model["apiKey"]) == (ODD.model, f"{ODD.url}/v1", ODD.key)
    assert model["provider"] == "openai"


def test_aider_reads_yaml():
    settings = yaml.safe_load(CLIENTS["aider"][1](ODD))
    assert (settings["model"], settings["openai-api-key"]) == (f"openai/{ODD.model}", ODD.key)
    assert settings["openai-api-base"].endswith("/v1")


def test_claude_code_reads_json():
    environment = json.loads(CLIENTS["claude-code"][1](ODD))["env"]
    assert (environment["ANTHROPIC_BASE_URL"], environment["ANTHROPIC_AUTH_TOKEN"]) == (ODD.url, ODD.key)
    assert environment["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == ODD.model
    assert all(isinstance(value, str) for value in environment.values())


def test_open_webui_and_curl_are_words_of_a_shell(tmp_path):
    exported = CLIENTS["open-webui"][1](ODD).replace("open-webui serve", "env")
    environment = subprocess.run(["sh", "-c", exported], capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert {f"OPENAI_API_KEY={ODD.key}", f"OPENAI_API_BASE_URL={ODD.url}/v1", f"DEFAULT_MODELS={ODD.model}"} <= set(environment)
    words = shlex.split(CLIENTS["curl"][1](ODD))
    assert json.loads(words[-1])["model"] == ODD.model
    assert f"Authorization: Bearer {ODD.key}" in words
    assert list(tmp_path.iterdir()) == [], "no word was run"


def test_what_cannot_be_known_is_one_sentence(keyed, capsys):
    running, _ = keyed
    with pytest.raises(UserError, match="--key"):
        connect("curl", url=running.url, key="sk-wrong", model="")
    with pytest.raises(UserError, match="spoutnik serve"):
        connect("curl", url="http://127.0.0.1:1", key="none", model="")
    with pytest.raises(UserError, match="is no address"):
        connect("curl", url="127.0.0.1:1", key="none", model="")
