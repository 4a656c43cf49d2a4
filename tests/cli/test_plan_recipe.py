"""`plan machine` and `plan recipe` answer in their first line, and `launch` says beforehand what it will take."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import spoutnik
from spoutnik.plan.probe import Probe, identity
from spoutnik.run.record import read

SOURCE = Path(spoutnik.__file__).parent.parent
RECIPE = """
name = "short"
[[stage]]
kind = "corpus"
name = "corpus"
sources = [{ task = { name = "countdown", numbers = [2], high = 9 } }]
tokens = 4000
vocab_size = 300
minutes = 2
[[stage]]
kind = "pretrain"
name = "base"
data = "corpus"
model = { family = "llama", depth = 1 }
steps = 2
batch_tokens = 256
sequence_length = 64
minutes = 2
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the program beside a kept probe and the recipe short.toml."""
    monkeypatch.setenv("SPOUTNIK_DEVICE", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "spoutnik").mkdir(parents=True)
    kept = Probe(identity(), "2026-01-01T00:00Z", 2e11, 1e12, 1e11, 1e10, 0.02, 1e9, 2e9)
    (tmp_path / "cache" / "spoutnik" / "probe.json").write_text(json.dumps(asdict(kept)))
    (tmp_path / "short.toml").write_text(RECIPE)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        command = [sys.executable, "-m", "spoutnik", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)

    return run


def test_the_machines_speed_is_what_was_measured(call):
    assert call("plan", "machine").stdout.startswith(identity())
    assert json.loads(call("plan", "machine", "--json").stdout)["bandwidth"] == 1e10


def test_a_launch_says_what_it_will_take_and_its_record_and_comparison_hold_it(call, tmp_path):
    told = call("plan", "recipe", "short.toml").stdout
    assert told.startswith("short takes about ")
    launched = call("launch", "short.toml", "--out", "run")
    assert launched.returncode == 0
    assert told.splitlines()[0] in launched.stderr
    expected = json.loads(call("plan", "recipe", "short.toml", "--json").stdout)["stages"]
    predicted = {event["stage"]: event["predicted"] for event in read(tmp_path / "run" / "record.jsonl") if event["event"] == "stage_start"}
    assert predicted["base"] == pytest.approx(expected["base"])
    compared = call("plan", "recipe", "short.toml", "--against", "run").stdout
    assert compared.startswith("short: predicted ")
    assert "base" in compared


def test_a_stages_time_is_explained_and_an_unknown_stage_is_told(call):
    assert "update products float32" in call("plan", "recipe", "short.toml", "--why", "base").stdout
    refused = call("plan", "recipe", "short.toml", "--why", "bas")
    assert (refused.returncode, "it has: corpus, base" in refused.stderr) == (1, True)
