"""The load test in its short form: a real server of a small model, a few seconds, and nothing may be wrong at the end."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from served import random_model

from spoutnik.checkpoint.hf import save_checkpoint

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_under_load_no_answer_changes_no_page_is_lost_and_sigterm_lets_all_end(tmp_path):
    import load

    model, tokenizer = random_model(1024)
    save_checkpoint(model, tokenizer, tmp_path / "tiny")
    found = asyncio.run(load.run(str(tmp_path / "tiny"), "tiny", 6.0, 12, len(load.SUBJECTS) * len(load.OPTIONS), 24, ["--max-batch", "8"]))
    assert found["wrong"] == []
    assert found["ended_whole"] == 12
    assert found["pages"]["used"] == found["drained"]["pages_used"] == 0
    assert {what.split(":")[0] for what in found["outcomes"]} == {"answered", "left", "nonsense", "cut off while asking"}
    assert found["memory_mib"][2] - found["memory_mib"][1] < 50
    assert "| pages of the cache when the load was over | 0 used" in load.table("tiny", [], found)


def test_a_slope_is_told_a_minute():
    import load

    assert load.slope([(second, 100 + 0.5 * second) for second in range(60)]) == pytest.approx(30)
