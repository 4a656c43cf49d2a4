"""`spoutnik serve --replicas` on a real Ray cluster of two nodes: an actor that is killed amid its answers changes none of them."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from served import random_model

from spoutnik.checkpoint.hf import save_checkpoint

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'spoutnik[cluster]'")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_enable_metrics_collection": "0",
}  # fmt: skip
SERVE = [sys.executable, "-m", "spoutnik", "serve"]
LONG = {"model": "tiny", "max_tokens": 900, "stream": True, "logprobs": 1, "logit_bias": {}}
ASKED = [
    {"prompt": "the cat sat", "seed": 1, "temperature": 0.9},
    {"prompt": "the mat", "seed": 2, "presence_penalty": 0.5, "frequency_penalty": 0.01},
    {"prompt": "a thought about it", "seed": 3, "repetition_penalty": 1.05, "n": 2},
    {"prompt": "sat on", "seed": 4, "stop": ["mat and", "cat the"], "min_p": 0.001},
]


@contextmanager
def process(command, **others):
    """A process that is ended at the end, with the first line that it prints."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, **others) as running:
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.stdin.close()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    model, tokenizer = random_model(context=2048)
    save_checkpoint(model, tokenizer, path)
    LONG["logit_bias"] = {str(token): -100 for token in tokenizer.eos_token_ids}
    return path


def actors():
    """The processes of the test's replicas."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::Replica") and ENVIRONMENT["RAY_AUTH_TOKEN"].encode() in environment:
                found.append(int(folder.name))
    return found


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def figure(url, name):
    """One of the server's metrics."""
    lines = httpx2.get(url.removesuffix("v1") + "metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"spoutnik_{name} "))


def told(url, body, begun):
    """All that a streamed answer says, by choice: text, log-probabilities, why it ended."""
    texts, tokens, reasons = {}, {}, {}
    with httpx2.stream("POST", f"{url}/completions", json={**LONG, **body}, timeout=60) as response:
        received = b""
        for more in response.iter_bytes():
            received += more
            if b"\n\ndata" in received:
                begun.set()
    for line in received.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                index, likely = choice["index"], choice["logprobs"]
                texts[index] = texts.get(index, "") + choice["text"]
                tokens.setdefault(index, []).extend(zip(likely["tokens"], likely["token_logprobs"], likely["top_logprobs"], strict=True))
                reasons[index] = choice["finish_reason"] or reasons.get(index)
    return texts, tokens, reasons


@needs_ray
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_an_actor_that_is_killed_in_the_middle_of_its_answers_changes_none_of_them(tiny):
    ENVIRONMENT["RAY_AUTH_MODE"], ENVIRONMENT["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    folder = tempfile.mkdtemp(prefix="ray-")  # short, for the sockets in it
    ENVIRONMENT["RAY_TMPDIR"] = folder
    cluster = [sys.executable, str(Path(__file__).with_name("ray_cluster.py"))]
    with (
        process(cluster) as (_, address),
        process([*SERVE, str(tiny), "--replicas", "2", "--cluster", address, "--dtype", "float32", "--port", "0"]) as (server, line),
    ):
        url = line.split()[0]
        expected = [told(url, body, threading.Event()) for body in ASKED]
        pids, begun = actors(), [threading.Event() for _ in ASKED]
        assert len(pids) == 2
        with ThreadPoolExecutor(len(ASKED)) as pool:
            answers = [pool.submit(told, url, body, event) for body, event in zip(ASKED, begun, strict=True)]
            assert all(event.wait(20) for event in begun)
            os.kill(pids[0], signal.SIGKILL)
            found = [answer.result() for answer in answers]
        for one, other in zip(found, expected, strict=True):
            assert one == other
        until(lambda: figure(url, "replicas") == 2)
        assert figure(url, "replica_losses_total") == 1
        assert figure(url, "requests_resumed_total") >= 1
        assert figure(url, 'cache_pages{state="used"}') == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        until(lambda: not actors())
    shutil.rmtree(folder)
