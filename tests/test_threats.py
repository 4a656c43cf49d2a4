"""THREATS.md: every promise is held by a test that exists, and nothing in the package could open what it says is never opened."""

import ast
import re
from pathlib import Path

import pytest

import spoutnik.errors

PACKAGE = Path(spoutnik.errors.__file__).parent
ROOT = Path(__file__).parents[1]
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "__import__"}
RUNS_PROGRAMS = {"sandbox/program.py", "tasks/code_wire.py"}
"""They run what a policy wrote, within the walls of the sandbox."""
NAMES_MODULES = {"sandbox/runner.py", "tasks/workers.py"}
"""They import modules by names that the program itself gives them."""
FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_promise_names_tests_that_exist():
    text = (ROOT / "THREATS.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"`(test_\w+)`", text))
    known = {
        node.name for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }  # fmt: skip
    assert len(promised) > 20
    assert promised <= known, promised - known
    rows = [line for line in text.splitlines() if re.match(r"\| .* \| [1-7](, [1-7])* \|", line)]
    assert len(rows) > 15
    assert all("`test_" in row for row in rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_unpickles_and_nothing_runs_code_of_a_models(file):
    place = str(file.relative_to(PACKAGE))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
            assert not FORBIDDEN & {name.split(".")[0] for name in names}, (place, node.lineno)
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, (place, node.lineno)  # noqa: PT018
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, (place, node.lineno)  # noqa: PT018
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "torch.load":
                assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords), (place, node.lineno)
            assert called not in CALLS or place in RUNS_PROGRAMS, (place, node.lineno)
            assert called != "os.system", (place, node.lineno)
            assert called != "importlib.import_module" or place in NAMES_MODULES, (place, node.lineno)
