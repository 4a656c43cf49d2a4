"""Where is computed: every kind of stage runs on an accelerator as on the CPU, and no device is named in the code.

A real accelerator takes part where the machine has one. Everywhere there is one on paper, which refuses what a real one would refuse.
"""

import io
import json
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import torch

import spoutnik.errors
from spoutnik.device import VARIABLE, computing_device, describe, memory_of
from spoutnik.errors import UserError
from spoutnik.run import machine

PACKAGE = Path(spoutnik.errors.__file__).parent
HELPERS = Path(__file__).parent / "model"
REAL = torch.accelerator.current_accelerator(check_available=True)
ACCELERATORS = ["paper", *([str(REAL)] if REAL is not None else [])]


def run(folder: Path, device: str) -> dict:
    """What `device_runs.py` prints, of a process without the kernels, so that the modules sample as they do on an accelerator."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), str(HELPERS)]), "PATH": "", "CXX": ""}
    environment |= {VARIABLE: device} if device != "paper" else {VARIABLE: "auto"}
    folder.mkdir()
    command = [sys.executable, str(HELPERS / "device_runs.py"), str(folder), *(["paper"] if device == "paper" else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return run(tmp_path_factory.mktemp("cpu") / "run", "cpu")


@pytest.mark.parametrize("device", ACCELERATORS)
def test_every_kind_of_stage_computes_on_an_accelerator_what_it_does_on_the_cpu(tmp_path, on_cpu, device):
    found = run(tmp_path / "run", device)
    assert found["device"].startswith(device)
    assert on_cpu["device"] == "cpu"
    assert found["gap"] == on_cpu["gap"] == 0.0, "a resumed step is that of a run left alone"
    assert found["losses"].keys() == on_cpu["losses"].keys()
    assert len(found["losses"]) >= 11
    exact = [step for step in found["losses"] if not step.startswith("v32")]  # in bfloat16, which the one on paper does not round to
    assert {step: found["losses"][step] for step in exact} == pytest.approx({step: on_cpu["losses"][step] for step in exact}, rel=1e-3)
    assert found["weights"] == pytest.approx(on_cpu["weights"], rel=1e-3)


def test_the_accelerator_on_paper_refuses_tensors_of_two_devices():
    code = (
        "import paper_accelerator, torch; on_paper = torch.ones(2, device='paper')\n"
        "try: on_paper + torch.ones(2)\nexcept RuntimeError as error: print(error)\nprint((on_paper + 1.0).cpu().tolist(), on_paper.device)"
    )
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    refusal, result = done.stdout.splitlines()
    assert "on cpu beside ones on paper" in refusal
    assert result == "[2.0, 2.0] paper:0"


@pytest.mark.parametrize(("wanted", "expected"), [("nowhere", "torch knows no device by"), ("meta", "nothing can be computed there")])
def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch, wanted, expected):
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(UserError, match=f"{VARIABLE} is '{wanted}', .*{expected}"):
        computing_device()


def test_the_cpu_can_be_asked_for_and_its_memory_is_the_machines(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cpu")
    device = computing_device()
    assert device == torch.device("cpu")
    assert describe(device) == "cpu"
    assert memory_of(device).total == machine.inspect().memory


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_kind_of_accelerator_is_named(path):
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        words = token.string.lower().replace(".", " ").replace(":", " ").replace('"', " ").replace("'", " ").split()
        assert not {"cuda", "mps", "xpu", "rocm", "hip"} & set(words), f"{path}, line {token.start[0]}: {token.string}"
