"""The record survives a kill at any byte and never tells a step twice."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.run.record import Record, read


def steps(record, stage):
    return [event["step"] for event in read(record.path) if event["stage"] == stage and event["event"] == "step"]


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_record_cut_anywhere_reads_as_its_whole_lines_and_goes_on(cut, tmp_path_factory):
    record = Record(tmp_path_factory.mktemp("record") / "record.jsonl")
    for step in range(1, 6):
        record.append({"event": "step", "stage": "base", "step": step, "loss": 1 / step, "note": "é\n"})
    content = record.path.read_bytes()[:cut]
    record.path.write_bytes(content)
    whole = content.count(b"\n")
    assert len(read(record.path)) - whole in (0, 1)  # a line that lacks only its newline is whole
    again = Record(record.path)
    again.append({"event": "step", "stage": "base", "step": 9})
    assert steps(again, "base") == [*range(1, whole + 1), 9]


def test_resuming_leaves_no_step_twice_and_touches_no_other_stage(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    for stage in ("base", "rl"):
        record.append({"event": "stage_start", "stage": stage})
        for step in range(1, 5):
            record.append({"event": "step", "stage": stage, "step": step})
            record.append({"event": "sample", "stage": stage, "text": f"after {step}"})
    record.append({"event": "stage_end", "stage": "rl"})
    record.truncate_stage("rl", 2)
    assert steps(record, "rl") == [1, 2]
    assert steps(record, "base") == [1, 2, 3, 4]
    texts = [event["text"] for event in read(record.path) if event["event"] == "sample" and event["stage"] == "rl"]
    assert texts == ["after 1", "after 2"]
    assert [event["event"] for event in read(record.path) if event["stage"] == "rl"].count("stage_start") == 1
    assert not any(event["event"] == "stage_end" for event in read(record.path))


def test_starting_anew_drops_all_but_the_start(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    record.append({"event": "stage_start", "stage": "eval"})
    record.append({"event": "eval", "stage": "eval", "accuracy": 0.5})
    record.truncate_stage("eval", 0)
    assert [event["event"] for event in read(record.path)] == ["stage_start"]


def test_numbers_that_json_cannot_hold_are_kept_readable(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    record.append({"event": "step", "stage": "base", "step": 1, "loss": math.nan, "load": [1.0, math.inf]})
    line = record.path.read_text().strip()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] == "nan"


def test_damage_in_the_middle_is_named_not_skipped(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text('{"event": "step"}\n{"eve\n{"event": "step"}\n')
    with pytest.raises(ValueError, match="line 2"):
        read(path)
