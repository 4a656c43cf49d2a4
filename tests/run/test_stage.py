"""A stage killed at any moment goes on to the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe import Price
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext
from spoutnik.run.ledger import Ledger
from spoutnik.run.record import Record, read
from spoutnik.run.stage import keep, run_stage


@dataclass
class Sum:
    step: int = 0
    value: int = 1


def advance(state):
    state.step += 1
    state.value = state.value * 6364136223846793005 % 2**61 + state.step
    return {"loss": state.value / 2**61}


def save(state, folder):
    (folder / "state.json").write_text(json.dumps(vars(state)))


def load(folder):
    return Sum(**json.loads((folder / "state.json").read_text()))


def context(path, every=3):
    folder = path / "stages" / "base"
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / "ledger.json", Price())
    return StageContext(
        "base", folder, path / "checkpoints" / "base", lambda name: path, Record(path / "record.jsonl"), ledger, 1, save_every_steps=every
    )


def run(path, steps=20, step=advance, every=3):
    return run_stage(context(path, every), steps, Sum, step, save, load)


def recorded(path):
    return [(event["step"], event["loss"]) for event in read(path / "record.jsonl") if event["event"] == "step"]


@pytest.mark.parametrize("fatal", [1, 2, 4, 5, 19, 20])
def test_failing_at_any_step_and_resuming_equals_never_failing(tmp_path, fatal):
    def failing(state):
        if state.step + 1 == fatal:
            raise RuntimeError("power cut")
        return advance(state)

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        run(tmp_path / "cut", step=failing)
    assert run(tmp_path / "cut") == whole
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")


def test_kill_minus_nine_at_random_moments_equals_never_killed(tmp_path):
    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\nimport time, test_stage as t\nfrom pathlib import Path\n"
    )
    script += "def slow(state):\n    time.sleep(0.002)\n    return t.advance(state)\n"
    script += f"t.run(Path({str(tmp_path / 'killed')!r}), 400, slow, every=1)\n"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script])
        pointer = tmp_path / "killed" / "stages" / "base" / "latest"
        deadline = time.monotonic() + 20
        before = pointer.read_text() if pointer.exists() else ""
        while time.monotonic() < deadline and (pointer.read_text() if pointer.exists() else "") == before:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert run(tmp_path / "killed", 400, every=50) == run(tmp_path / "whole", 400, every=50)
    assert recorded(tmp_path / "killed") == recorded(tmp_path / "whole")


def test_ctrl_c_saves_between_steps_and_raises(tmp_path):
    def pressed(state):
        if state.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(state)

    with interrupt.between_steps(), pytest.raises(KeyboardInterrupt):
        run(tmp_path, step=pressed, every=100)
    assert (tmp_path / "stages" / "base" / "latest").read_text() == "state-00000005"
    assert run(tmp_path) == run(tmp_path / "whole")


def test_a_full_disk_loses_nothing_and_says_what_to_do(tmp_path):
    keep(tmp_path, "state-1", lambda folder: (folder / "x").write_text("whole"))

    def full(folder):
        (folder / "x").write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="make room"):
        keep(tmp_path, "state-2", full)
    assert (tmp_path / (tmp_path / "latest").read_text() / "x").read_text() == "whole"
    assert not (tmp_path / "state-2").exists()


def test_only_the_newest_state_stays(tmp_path):
    run(tmp_path)
    assert [path.name for path in (tmp_path / "stages" / "base").glob("state-*")] == ["state-00000020"]
