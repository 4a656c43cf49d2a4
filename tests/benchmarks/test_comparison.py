"""The comparison with other engines: what is asked of them, how they are kept apart, and how figures are judged."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model

from spoutnik.library import Model
from spoutnik.text.tokenizer import train_bpe


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = train_bpe(["one two three four"], 300)
    model = tiny_model("llama", vocab_size=tokenizer.vocab_size)
    Model(model.to(torch.bfloat16), tokenizer).save(tmp_path / "hf")
    return str(tmp_path / "hf")


def test_prompts_are_the_same_for_every_engine_and_new_in_every_try():
    from contestants.job import Job

    job = Job(3, 5, 1, seed=1)
    assert job.prompt_ids(1000) == Job(3, 5, 2, temperature=1.0, seed=1).prompt_ids(1000)
    firsts = {tuple(ids) for seed in range(20) for ids in Job(3, 5, 1, seed=seed).prompt_ids(1000)}
    assert len(firsts) == 60
    group = Job(3, 5, 1, shared=True).prompt_ids(1000)
    assert group == [group[0]] * 3


def test_a_contestant_is_stopped_while_it_is_not_its_turn_and_gone_when_closed(checkpoint):
    from contestants import ours
    from contestants.job import Job

    contestant = ours.contestant(checkpoint, "float32", 1)
    for seed in (1, 2):
        timing = contestant.run(Job(2, 8, 5, seed=seed))
        assert 0 < timing.first < timing.total
        stat = Path(f"/proc/{contestant._process.pid}/stat")
        if stat.exists():
            while (state := stat.read_text().rpartition(")")[2].split()[0]) in "RSD":
                pass  # the signal is on its way
            assert state == "T"
    process = contestant._process
    contestant.close()
    assert process.returncode is not None


def test_a_contestant_that_cannot_load_says_why(tmp_path):
    from contestants import ours
    from contestants.job import Job

    with pytest.raises(RuntimeError, match="No model"):
        ours.contestant(str(tmp_path / "nothing"), "float32", 1).run(Job(1, 8, 1))


def test_a_fresh_start_ends_with_a_token(checkpoint):
    from contestants import ours
    from rows import _start

    assert 0 < _start(ours.contestant(checkpoint, "float32", 1)) < 300


def test_a_peer_that_is_not_there_is_named_and_nothing_is_installed(tmp_path):
    import peers

    for find in (lambda: peers.llama_cpp(tmp_path, build=False), lambda: peers.vllm(tmp_path, install=False)):
        with pytest.raises(peers.MissingError, match="not installed"):
            find()
    assert not list(tmp_path.iterdir())


def test_a_decoding_step_reads_the_active_weights_and_a_large_batch_all_of_them():
    import roofline
    from contestants.job import Job

    from spoutnik.model.flops import parameters

    config = tiny_model("deepseek-v3").config
    measured = {"read": 1e9, "float32": 1e9, "bfloat16": 4e9, "int8": 0}
    count, table = parameters(config), config.vocab_size * config.hidden_size
    cache = 16 + 4  # numbers a token and layer: latent and rotary channels
    one = roofline.limit(config, "bfloat16", Job(1, 9, 2), measured)
    assert one.bytes == pytest.approx(2 * (count.active - table + 3 * cache * 10))
    assert one.seconds == one.read_s == pytest.approx(one.bytes / 1e9)
    many = roofline.limit(config, "float32", Job(1000, 9, 2), measured)
    assert many.bytes == pytest.approx(4 * (count.total - table + 1000 * 3 * cache * 10))
    assert many.seconds == many.multiply_s > many.read_s
    assert roofline.limit(config, "int8", Job(1, 9, 2), measured).multiply_s == pytest.approx(2 * one.operations / 1e9)  # no such products


def test_the_compiler_at_hand_finds_the_machine_s_limits():
    import roofline

    from spoutnik.engine.kernels.build import compiler

    if compiler() is None:
        pytest.skip("no compiler here")
    found = roofline.machine(1)
    assert found["read"] > 1e8
    assert found["float32"] > 1e8


def test_ratios_are_above_one_where_we_are_faster_than_the_best_peer():
    import report

    rates = {"Spoutnik int8": 90.0, "llama.cpp Q8_0": 30.0, "transformers float32": 10.0}
    assert report.ratio("tokens/s", 90.0, report.best_peer("tokens/s", rates)) == 3
    seconds = {"Spoutnik int8": 2.0, "llama.cpp Q8_0": 1.0, "transformers float32": 8.0}
    assert report.ratio("s", 2.0, report.best_peer("s", seconds)) == 0.5
    assert report.best_peer("s", {"Spoutnik int8": 2.0}) is None


def test_the_tables_hold_every_figure_and_every_failure(checkpoint, tmp_path, capsys):
    import report
    from rows import Row

    rows = [
        Row("batch 1", {"Spoutnik int8": [50.0, 60.0], "vLLM bfloat16": [30.0]}, {"llama.cpp Q8_0": "it fell over"}),
        Row("prefill", {"Spoutnik int8": [500.0]}, disturbed={"Spoutnik int8": 1}),
        Row("group", {"Spoutnik int8": [2.0, 1.5]}),
        Row("no group", {"Spoutnik int8": [6.0]}),
    ]
    limits = {"read": 1e9, "float32": 1e9, "bfloat16": 0, "int8": 1e9, "int8_by": "VNNI"}
    report.write(
        {
            "model": "tiny", "machine": "a machine", "threads": 1, "limits": limits, "versions": {}, "missing": {"llama.cpp": "no cmake"},
            "notes": ["a note"], "rows": {row.name: {"unit": row.unit, **dataclasses.asdict(row)} for row in rows},
        },
        Path(checkpoint), tmp_path,
    )  # fmt: skip
    text = capsys.readouterr().out
    for part in ("60 (2.00)", "4.00x", "no cmake", "it fell over", "a note", "1 of 1 turns", "VNNI"):
        assert part in text
    assert (tmp_path / "engine-tiny.md").read_text(encoding="utf-8") in text
    assert (tmp_path / "engine-tiny.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_what_descendants_used_is_not_taken_for_others_work():
    import quiet

    if not Path("/proc/stat").exists():
        pytest.skip("Linux tells, others do not")
    ticks = os.sysconf("SC_CLK_TCK")
    before = quiet._ours(ticks)
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert quiet._ours(ticks) - before >= 0.28
