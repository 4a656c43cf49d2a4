"""spoutnik export and spoutnik quantize as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spoutnik.checkpoint.gguf import GGUF
from spoutnik.checkpoint.hf import save_checkpoint

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def spoutnik(*arguments, cwd):
    command = [sys.executable, "-m", "spoutnik", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120, check=False)


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "r1")
    return tmp_path


def test_export_writes_a_file_and_says_so_in_one_line(folder):
    result = spoutnik("export", "r1", "--gguf", "out/r1.gguf", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("out/r1.gguf: ")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""
    assert GGUF(folder / "out" / "r1.gguf").metadata["general.name"] == "r1"


def test_a_file_is_replaced_only_when_told_to(folder):
    (folder / "x.gguf").write_bytes(b"mine")
    for command in (["export", "r1", "--gguf", "x.gguf"], ["quantize", "r1", "x.gguf"]):
        result = spoutnik(*command, cwd=folder)
        assert (result.returncode, result.stdout) == (1, "")
        assert "x.gguf exists already" in result.stderr
        assert (folder / "x.gguf").read_bytes() == b"mine"
    result = spoutnik("export", "r1", "--gguf", "x.gguf", "--type", "q8_0", "--force", "--json", cwd=folder)
    figures = json.loads(result.stdout)
    assert figures["type"] == "q8_0"
    assert figures["bytes_after"] == (folder / "x.gguf").stat().st_size
    assert figures["bytes_before"] == sum(file.stat().st_size for file in (folder / "r1").glob("*.safetensors"))


def test_quantize_answers_in_its_first_line_and_measures(folder):
    result = spoutnik("quantize", "r1", "r1.gguf", "--type", "q4_1", cwd=folder)
    assert result.returncode == 0, result.stderr
    answer = result.stdout.splitlines()[0]
    assert answer.startswith("r1.gguf: ")
    assert "of greedy tokens kept" in answer
    for row in ("size", "greedy tokens kept", "KL, nats a token", "perplexity"):
        assert any(line.startswith(row) for line in result.stdout.splitlines())


def test_quantize_compares_on_a_given_text(folder):
    (folder / "text.txt").write_text("3+4=7, and 9-5=4 " * 40, encoding="utf-8")
    figures = json.loads(spoutnik("quantize", "r1", "r1.gguf", "--text", "text.txt", "--json", cwd=folder).stdout)
    assert figures["text"] == "text.txt"
    assert figures["bytes_after"] < figures["bytes_before"]
    assert figures["low"] <= figures["greedy"] <= figures["high"]
    assert figures["kl"] >= 0
    assert figures["perplexity_original"] > 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "r1", "--gguf", "r1"], "is a folder"),
        (["export", "nowhere", "--gguf", "x.gguf"], "nowhere"),
        (["quantize", "r1", "x.gguf", "--text", "nothing.txt"], "nothing.txt cannot be read"),
    ],
)
def test_a_fault_is_one_sentence_and_leaves_no_file(folder, arguments, expected):
    result = spoutnik(*arguments, cwd=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert expected in result.stderr
    assert not list(folder.glob("*.gguf"))
