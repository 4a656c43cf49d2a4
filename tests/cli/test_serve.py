"""`spoutnik serve` as a process: one line when it is up, one sentence when it cannot be, a polite end."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from scripted import scripted_model

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.cli.serve import serve
from spoutnik.errors import UserError
from spoutnik.serve.keys.store import KeyStore, Limits
from spoutnik.teacher.money import BILLIONTHS
from spoutnik.text.tokenizer import train_bpe

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
SERVE = [sys.executable, "-m", "spoutnik", "serve"]


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A checkpoint that counts without end."""
    path = tmp_path_factory.mktemp("models") / "counter"
    tokenizer = train_bpe(["five six"] * 20, vocab_size=320)
    save_checkpoint(scripted_model(tokenizer, "five six\n", max_position_embeddings=200_000), tokenizer, path)
    return path


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'spoutnik[cluster]'")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_told_in_a_sentence(endless, address):
    with pytest.raises(UserError, match=rf"No Ray cluster can be joined at '{address}'"):
        serve(str(endless), port=0, dtype="float32", cluster=address)


def test_replicas_without_ray_are_refused_in_a_sentence(endless, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="not installed; run: pip install"):
        serve(str(endless), port=0, dtype="float32", replicas=2)


@contextmanager
def server(*arguments):
    """A server at a free port, and its first line."""
    command = [*SERVE, *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_it_says_where_what_and_for_whom_and_lets_answers_end_when_it_is_asked_to_stop(endless):
    with server(endless, "--name", "six", "--alias", "gpt-5", "--dtype", "float32", "--price", "kwh=0.3") as (process, line):
        address = line.split()[0]
        assert line == f"{address} serves six (float32) to this machine; no key is needed.\n"
        assert httpx2.get(f"{address}/models").json()["data"][0]["id"] == "six"
        assert httpx2.get(address.removesuffix("/v1") + "/ready").status_code == 200
        body = {"model": "gpt-5", "prompt": "\n", "max_tokens": 400, "temperature": 0, "stream": True}
        with httpx2.stream("POST", f"{address}/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2] == "data: [DONE]" or rest[-1] == "data: [DONE]"
        assert process.wait(timeout=30) == 0
        logged = [json.loads(line) for line in process.stderr if line.startswith("{")]
        assert [entry["path"] for entry in logged if entry["message"] == "request"] == ["/models", "/completions"]
        (answered,) = [entry for entry in logged if entry["message"] == "answered"]
        assert (answered["completion_tokens"], answered["finish_reasons"]) == (400, ["length"])
        assert not any("five" in json.dumps(entry) for entry in logged)


def test_a_second_signal_ends_what_runs_with_an_error(endless):
    with server(endless) as (process, line):
        address = line.split()[0]
        body = {"model": "counter", "prompt": "\n", "max_tokens": 190_000, "stream": True}
        with httpx2.stream("POST", f"{address}/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            while httpx2.get(address.removesuffix("/v1") + "/ready").status_code == 200:
                pass
            assert httpx2.post(f"{address}/completions", json=body).status_code == 503
            process.send_signal(signal.SIGINT)
            assert "The server stops." in [line for line in lines if line][-1]
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()


def test_other_machines_are_served_with_a_key_and_money_spent_is_written_down_at_the_end(endless, tmp_path):
    path = tmp_path / "keys.sqlite"
    store = KeyStore(path)
    _, secret = store.create(limits=Limits(budget=BILLIONTHS, currency="EUR"))
    with server(endless, "--host", "0.0.0.0", "--keys", path, "--price", "cpu_core_hour=1.0") as (process, line):
        address = line.split()[0].replace("0.0.0.0", "127.0.0.1")
        assert line.endswith(" to whoever reaches it, unencrypted; a key is needed.\n")
        body = {"model": "counter", "prompt": "\n", "max_tokens": 5}
        assert httpx2.post(f"{address}/completions", json=body).status_code == 401
        assert httpx2.post(f"{address}/completions", json=body, headers={"x-api-key": secret}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    (kept,) = store.all()
    store.close()
    assert (kept.requests, kept.completion_tokens) == (1, 5)
    assert kept.spent > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "no key .*spoutnik key create"),
        ({"host": "::"}, "no key .*spoutnik key create"),
        ({"require_key": True}, "no key .*spoutnik key create"),
        ({"tls_cert": Path("cert.pem")}, "go together"),
        ({"port": 1, "host": "127.0.0.1"}, "cannot listen at 127.0.0.1 port 1 .*choose another --port"),
        ({"adapter": ["poems"]}, "NAME=DIR"),
        ({"adapter": ["poems=a", "poems=b"]}, "NAME=DIR"),
        ({"dtype": "int3"}, "must be one of"),
        ({"model": "no-such-model"}, "no-such-model"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(endless, changes, message, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if changes.get("port") == 1:
            changes, message = {"port": taken.getsockname()[1]}, message.replace("port 1 ", f"port {taken.getsockname()[1]} ")
        with pytest.raises(UserError, match=message):
            serve(**{"model": str(endless), "port": 0, **changes})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_it_serves_https_where_it_is_given_a_certificate(endless, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True,
    )  # fmt: skip
    with server(endless, "--tls-cert", certificate, "--tls-key", key) as (_, line):
        address = line.split()[0]
        assert address.startswith("https://127.0.0.1:")
        assert httpx2.get(f"{address}/models", verify=ssl.create_default_context(cafile=certificate)).status_code == 200
    with pytest.raises(UserError, match="certificate and its key cannot be used"):
        serve(str(endless), port=0, tls_cert=key, tls_key=certificate)
