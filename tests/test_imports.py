"""Imports point downward only, and nothing heavy is imported where it must not be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spoutnik.errors

PACKAGE = Path(spoutnik.errors.__file__).parent
LEAVES = {"device", "errors", "recipe", "run", "sandbox"}
LAYERS = [{"text", "model"}, {"checkpoint"}, {"engine", "tasks"}, {"data", "teacher"}, {"serve", "train", "evaluate", "plan", "audit"}]
TOP = {"cli", "pipeline", "preflight", "rehearsal", "__init__", "__main__", "library"}
ALLOWED = {("evaluate", f"train.{module}") for module in ("rollouts", "taught", "asking", "state")}
"""An evaluation asks, samples, seeds and grades exactly as training does."""
NO_TORCH = [
    "spoutnik.recipe",
    "spoutnik.run.stage",
    "spoutnik.run.report",
    "spoutnik.pipeline",
    "spoutnik.cli.main",
    "spoutnik.engine.scheduler",
    "spoutnik.engine.request",
    "spoutnik.engine.prompts",
    "spoutnik.engine.shelf",
    "spoutnik.tasks",
    "spoutnik.teacher.opening",
    "spoutnik.teacher.card",
    "spoutnik.sandbox.pool",
]


def rank(room):
    if room in LEAVES:
        return 0
    return next((index for index, layer in enumerate(LAYERS, start=1) if room in layer), len(LAYERS) + 1)


def imported(path):
    """The modules of ours that a file imports, at its top or within functions, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module] if node.module != "spoutnik" else [f"spoutnik.{alias.name}" for alias in node.names]
        yield from (name.removeprefix("spoutnik.") for name in names if name.startswith("spoutnik."))


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert room in LEAVES | TOP | set().union(*LAYERS), f"{room} has no place in the order of the rooms"
    for module in imported(path):
        target = module.split(".")[0]
        if target == room or (room, module) in ALLOWED:
            continue
        assert rank(target) < rank(room) or (room in LEAVES and target in LEAVES) or (room in TOP and target in TOP), (
            f"{path} imports {module}"
        )


def test_the_order_refuses_what_it_is_meant_to_refuse():
    assert rank("train") > rank("engine") > rank("checkpoint") > rank("model") > rank("run")
    assert rank("cli") > rank("serve")


@pytest.mark.parametrize("module", NO_TORCH)
def test_light_modules_stay_light(module):
    code = f"import sys; sys.path[:0] = {sys.path!r}; import {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_planner_imports_no_torch():
    found = sorted((PACKAGE / "plan").rglob("*.py"))
    modules = [".".join(("spoutnik", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in found if path.stem != "__init__"]
    code = f"import sys; sys.path[:0] = {sys.path!r}; import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert modules
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_idea_one_file_under_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
