"""The promise of the house: kill it at any moment, run the same command, and the weights are those of a run that was left alone.

The real command line on a tiny recipe with every kind of training stage; real SIGKILLs, and a Ctrl-C.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spoutnik.errors
from spoutnik.run.record import read

SIZES = (
    "hidden_size = 32, intermediate_size = 48, q_lora_rank = 16, kv_lora_rank = 8, qk_nope_head_dim = 8, qk_rope_head_dim = 8, "
    "v_head_dim = 8, moe_intermediate_size = 16"
)
PUZZLE = '{ name = "countdown", numbers = [2], high = 9 }'
RECIPE = f"""
name = "tiny"
seed = 11

[[stage]]
kind = "corpus"
name = "corpus"
tokens = 6000
vocab_size = 300
sources = [{{ task = {PUZZLE} }}]

[[stage]]
kind = "pretrain"
name = "base"
data = "corpus"
model = {{ family = "deepseek_v3", depth = 2, {SIZES} }}
steps = 8
batch_tokens = 256
sequence_length = 64
optimizer = "muon"

[[stage]]
kind = "sample"
name = "samples"
from = "base"
task = {PUZZLE}
problems = 6
samples_per_problem = 2
max_new_tokens = 8
keep = "all"

[[stage]]
kind = "traces"
name = "traces"
task = {PUZZLE}
problems = 40

[[stage]]
kind = "sft"
name = "started"
from = "base"
data = "traces"
steps = 2
batch_size = 3
learning_rate = 1e-3

[[stage]]
kind = "sft"
name = "tuned"
from = "base"
data = "samples"
steps = 8
batch_size = 3
learning_rate = 1e-3

[[stage]]
kind = "rl"
name = "zero"
from = "tuned"
task = {PUZZLE}
prompts = 4
group = 4
minibatches = 2
max_new_tokens = 8
steps = 8
learning_rate = 1e-3
language_weight = 1.0
reference_every = 3
curriculum = {{ problems = 12 }}
kl_coef = 0.01

[[stage]]
kind = "sample"
name = "pairs"
from = "base"
task = {PUZZLE}
problems = 8
samples_per_problem = 2
max_new_tokens = 8
keep = "any-pairs"

[[stage]]
kind = "dpo"
name = "preferring"
from = "tuned"
data = "pairs"
steps = 8
batch_size = 2
learning_rate = 1e-3

[[stage]]
kind = "logits"
name = "stored"
from = "tuned"
data = "samples"
top_k = 9

[[stage]]
kind = "distill"
name = "informed"
mode = "logits"
from = "base"
data = "stored"
steps = 8
batch_size = 3
learning_rate = 1e-3

[[stage]]
kind = "distill"
name = "student"
mode = "on-policy"
from = "base"
teacher = ["zero", "tuned"]
task = {{ name = "mixture", parts = [{PUZZLE}, {{ name = "arithmetic", terms = [2] }}] }}
prompts = 4
max_new_tokens = 8
temperature = 1.0
steps = 8
learning_rate = 1e-3
"""
TRAINED = ("base", "tuned", "zero", "preferring", "informed", "student")
OF_THE_CLOCK = ("time", "tokens_per_s", "rollout_s")


class Run:
    """One folder, and the same command on it again and again."""

    def __init__(self, path: Path, name: str):
        self.recipe, self.out, self.errors = path / "tiny.toml", path / name, path / f"{name}.stderr"
        self.recipe.write_text(RECIPE, encoding="utf-8")

    def start(self, save_every: float = 60.0) -> subprocess.Popen[bytes]:
        source = str(Path(spoutnik.errors.__file__).parents[1])
        command = [sys.executable, "-m", "spoutnik", "launch", str(self.recipe), "--out", str(self.out), "--save-every", str(save_every)]
        with self.errors.open("wb") as errors:
            environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)

    def finish(self) -> None:
        assert self.start().wait() == 0, self.errors.read_text()

    def stop_after(self, stage: str, step: int, number: int, delay: float, save_every: float) -> int:
        """Runs until `stage` has recorded `step`, a moment more, sends the signal and returns the exit status."""
        process = self.start(save_every)
        while not any(event.get("stage") == stage and event.get("step", 0) >= step for event in self.steps()):
            assert process.poll() is None, self.errors.read_text()
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        return process.wait()

    def steps(self) -> list[dict[str, object]]:
        """What the record says of each step, without what depends on the clock."""
        record = self.out / "record.jsonl"
        events = [event for event in read(record) if event["event"] == "step"] if record.exists() else []
        return [{key: value for key, value in event.items() if key not in OF_THE_CLOCK} for event in events]

    def made(self) -> dict[str, bytes]:
        files = [*self.out.glob("checkpoints/*/*"), self.out / "stages/corpus/tokens.bin", *self.out.glob("stages/*/samples.jsonl")]
        return {str(file.relative_to(self.out)): file.read_bytes() for file in files}


@pytest.mark.timeout(1500)
def test_killed_and_stopped_at_any_moment_a_run_ends_in_the_same_bits(tmp_path):
    left_alone, harassed = Run(tmp_path, "left-alone"), Run(tmp_path, "harassed")
    left_alone.finish()

    rng, statuses = random.Random(1957), []
    for stage in TRAINED:
        moment = (rng.randint(1, 5), signal.SIGKILL, rng.uniform(0, 0.05), rng.choice([0.0, 0.1]))
        statuses.append(harassed.stop_after(stage, *moment))
        if stage == "tuned":
            assert harassed.stop_after("zero", 2, signal.SIGINT, 0.0, save_every=60.0) == 130
            assert "run the same command again to go on" in harassed.errors.read_text()
            assert (harassed.out / "stages/zero/latest").exists(), "a stop that was asked for saves first"
    harassed.finish()
    assert statuses.count(-signal.SIGKILL) >= 3, f"most kills hit a living process: {statuses}"

    expected, found = left_alone.made(), harassed.made()
    assert {f"checkpoints/{stage}/model.safetensors" for stage in TRAINED} <= expected.keys()
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert harassed.steps() == left_alone.steps(), "every step stands in the record once, and alike"
    assert any(step["grad_norm"] for step in left_alone.steps() if step["stage"] == "zero"), "the policy had something to learn"
