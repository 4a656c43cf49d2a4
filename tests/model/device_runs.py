"""A recipe with every kind of stage that computes, small enough for seconds, and what came of it.

`python device_runs.py FOLDER [paper]` runs it in a process of its own, with `paper` on the accelerator of `paper_accelerator.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from spoutnik.device import computing_device
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.pipeline import run_recipe
from spoutnik.recipe import Price, SFTStage, parse_recipe
from spoutnik.run.context import StageContext
from spoutnik.run.ledger import Ledger
from spoutnik.run.record import Record, read
from spoutnik.train.examples import Example
from spoutnik.train.optim import Optimizer
from spoutnik.train.sft import sft_step
from spoutnik.train.state import TrainState, load_state, save_state

TASK = {"name": "countdown", "numbers": [2], "high": 9}
MODEL = {
    "family": "deepseek_v3", "depth": 2, "hidden_size": 32, "intermediate_size": 48, "q_lora_rank": 16, "kv_lora_rank": 8,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "moe_intermediate_size": 16,
}  # fmt: skip
RL = {
    "kind": "rl", "from": "base", "task": TASK, "prompts": 4, "group": 4, "max_new_tokens": 12, "steps": 2, "learning_rate": 1e-2,
    "language_weight": 1.0, "minibatches": 2,
}  # fmt: skip
SAMPLES = {"kind": "sample", "from": "base", "task": TASK, "problems": 6, "samples_per_problem": 2, "max_new_tokens": 12}
LEARN = {"steps": 2, "batch_size": 4, "learning_rate": 1e-2}
STAGES: list[dict[str, Any]] = [
    {"kind": "corpus", "name": "corpus", "sources": [{"task": TASK}], "tokens": 4000, "vocab_size": 300, "held_out_tokens": 400},
    {"kind": "pretrain", "name": "base", "data": "corpus", "model": MODEL, "steps": 3, "batch_tokens": 256, "sequence_length": 64,
     "optimizer": "muon"},
    {**RL, "name": "grpo"},
    {**RL, "name": "v32", "algorithm": "v32", "top_p": 0.9, "dtype": "bfloat16"},
    {**SAMPLES, "name": "samples", "keep": "all"},
    {**SAMPLES, "name": "pairs", "keep": "any-pairs"},
    {"kind": "sft", "name": "tuned", "from": "base", "data": "samples", **LEARN},
    {"kind": "dpo", "name": "preferred", "from": "base", "data": "pairs", **LEARN},
    {"kind": "distill", "name": "taught", "mode": "on-policy", "from": "tuned", "teacher": "base", "task": TASK, "prompts": 4,
     "max_new_tokens": 12, "temperature": 1.0, "steps": 2, "learning_rate": 1e-2},
    {"kind": "logits", "name": "stored", "from": "base", "data": "samples", "top_k": 8},
    {"kind": "distill", "name": "from-disk", "mode": "logits", "from": "tuned", "data": "stored", **LEARN},
    {"kind": "distill", "name": "from-teacher", "mode": "logits", "from": "tuned", "teacher": "base", "data": "samples", **LEARN},
    {"kind": "eval", "name": "eval", "models": ["base", "taught"], "tasks": [{**TASK, "problems": 4}], "max_new_tokens": 8,
     "temperature": 0.6, "texts": ["builtin:english"], "text_characters": 300},
]  # fmt: skip


def run_all(folder: Path) -> dict[str, Any]:
    """Runs the recipe where `spoutnik.device` says; returns every loss by stage and step, and the checkpoints' sums of all weights."""
    torch.set_num_threads(1)
    run = run_recipe(parse_recipe({"name": "devices", "stage": STAGES}, "devices"), folder, save_every_steps=1)
    steps = [event for event in read(run.record_path) if event["event"] == "step"]
    losses = {f"{step['stage']} {step['step']}": step["loss"] for step in steps if "loss" in step}
    sums = {path.name: sum(float(tensor.double().abs().sum()) for tensor in load_file(path / "model.safetensors").values())
            for path in sorted(run.path.glob("checkpoints/*"))}  # fmt: skip
    return {"losses": losses, "weights": sums}


def gap_after_resuming(folder: Path) -> float:
    """Largest distance of the weights after a step from a saved state to those after the same step without saving."""
    config = depth_config("deepseek_v3", 2, 300).with_(**{key: value for key, value in MODEL.items() if key not in ("family", "depth")})
    stage = SFTStage.model_validate({"name": "stage", "from": "x", "data": "d", **LEARN})
    folder.mkdir()
    context = StageContext(
        "stage", folder, folder, Path, Record(folder / "record.jsonl"), Ledger(folder / "ledger.json", Price()), seed=5
    )  # fmt: skip
    examples = [Example(list(range(1, 9 + index)), 2) for index in range(8)]

    def start() -> TrainState:
        with computing_device():
            model = CausalLM(config)
        initialise(model, 1)
        return TrainState(model, Optimizer(model, 1e-2, 0.1, muon=True))

    left_alone = start()
    sft_step(left_alone, stage, examples, 4, context)
    save_state(left_alone, folder)
    resumed = load_state(start(), folder)
    for state in (left_alone, resumed):
        sft_step(state, stage, examples, 4, context)
    pairs = zip(left_alone.model.parameters(), resumed.model.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


if __name__ == "__main__":
    if sys.argv[2:] == ["paper"]:
        import paper_accelerator  # noqa: F401  # importing it is all
    where = str(computing_device())
    print(json.dumps({"device": where, "gap": gap_after_resuming(Path(sys.argv[1]) / "resumed"), **run_all(Path(sys.argv[1]) / "run")}))
