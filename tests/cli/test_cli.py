"""The program as a user calls it: quick help, one sentence for a fault, exit codes that scripts can trust."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
COMMANDS = (
    "launch", "pretrain", "sft", "rl", "dpo", "logits", "distill", "eval", "compare", "contamination", "run", "chat", "export",
    "quantize", "report", "teachers", "tasks", "models", "doctor",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}


def spoutnik(*arguments, cwd=None, **environment):
    command = [sys.executable, "-m", "spoutnik", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**ENVIRONMENT, **environment}, timeout=120, check=False)


def test_help_takes_under_a_fifth_of_a_second_and_names_every_command():
    """Processor time, for the wall clock of a busy machine says nothing about the program."""
    times = []
    for _ in range(5):
        before = os.times()
        result = spoutnik("--help")
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in result.stdout
    assert min(times) < 0.2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = spoutnik(command, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["launch", "sputnk"], "sputnk"),
        (["report", "nowhere"], "holds no record.jsonl"),
        (["tasks", "show", "countdwn"], "countdwn"),
        (["tasks", "sample", "countdown", "--option", "numbers"], "key=value"),
        (["tasks", "sample", "countdown", "--split", "tset"], "tset"),
        (["chat", "smollm2", "--json"], "--json needs a PROMPT"),
        (["models", "show", "nowhere"], "nowhere"),
        (["eval", "nowhere", "--task", "countdown"], "nowhere"),
        (["eval", "smollm2", "--task", "countdown", "--samples", "2"], "temperature"),
    ],
)
def test_a_fault_of_input_is_one_sentence_on_stderr_and_exit_1(arguments, expected, tmp_path):
    result = spoutnik(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    fault = [line for line in result.stderr.splitlines() if line.startswith("spoutnik: ")]
    assert len(fault) == 1
    assert expected in fault[0]
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_one_sentence_and_exit_1(tmp_path):
    """The system refuses files above 100 kB, as it would for want of room."""
    (tmp_path / "recipe.toml").write_text(
        """name = "full"
        [[stage]]
        kind = "corpus"
        name = "corpus"
        sources = [{ task = { name = "arithmetic" } }]
        tokens = 200000
        vocab_size = 400"""
    )
    result = subprocess.run(
        [sys.executable, "-m", "spoutnik", "launch", "recipe.toml", "--out", "run"], capture_output=True, text=True, cwd=tmp_path,
        env=ENVIRONMENT, timeout=120, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "disk is full" in result.stderr
    assert not (tmp_path / "run" / "stages" / "corpus" / "tokens.bin").exists()


def test_a_misused_command_exits_2():
    assert spoutnik("launch").returncode == 2
    assert spoutnik("fly").returncode == 2


def test_a_bad_recipe_is_refused_with_file_and_key_and_leaves_nothing_behind(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[[stage]]\nkind = "report"\nname = "report"\nstep = 3\n')
    result = spoutnik("launch", recipe, cwd=tmp_path)
    assert result.returncode == 1
    assert "mine.toml: stage[0] 'report': step is unknown" in result.stderr
    assert list(tmp_path.iterdir()) == [recipe]


def test_a_model_that_is_only_evaluated_is_estimated_whatever_its_terms_are(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f"""
        name = "mine"
        [[teacher]]
        name = "clever"
        dialect = "openai"
        base_url = "https://llm.example.org/v1"
        model = "m"
        price = {{ prompt = 1.0, completion = 2.0 }}
        max_cost = 1.0
        ledger = "{tmp_path / "ledger.sqlite"}"
        [[stage]]
        kind = "eval"
        name = "eval"
        models = ["clever"]
        tasks = [{{ name = "countdown", problems = 3 }}]
        samples_per_problem = 2
        temperature = 1.0
        max_new_tokens = 50
    """)
    result = spoutnik("teachers", recipe, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "evaluated only" in result.stdout
    assert "eval: 6 requests" in result.stdout


def test_a_dry_run_answers_in_its_first_line_and_exits_1_where_the_recipe_cannot_run(tmp_path):
    fits = spoutnik("launch", "algorithms", "--dry-run", cwd=tmp_path)
    assert fits.returncode == 0, fits.stderr
    assert fits.stdout.startswith("It fits: ")
    too_little = spoutnik("launch", "algorithms", "--dry-run", "--memory", "0.1", "--json", cwd=tmp_path)
    assert too_little.returncode == 1
    assert json.loads(too_little.stdout)["answer"].startswith("It cannot run here: stage ")
    assert not list(tmp_path.iterdir())
    assert "only say something with --dry-run" in spoutnik("launch", "algorithms", "--memory", "24", cwd=tmp_path).stderr


def test_launching_prints_where_the_report_is(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[[stage]]\nkind = "report"\nname = "report"\n')
    result = spoutnik("launch", recipe, "--out", tmp_path / "run", "--json")
    assert result.returncode == 0, result.stderr
    assert Path(json.loads(result.stdout)["report"]).read_text().startswith("<!doctype html>")


def test_tasks_are_listed_shown_and_sampled_the_same_every_time():
    names = json.loads(spoutnik("tasks", "list", "--json").stdout)
    assert "countdown" in names
    first, second = (spoutnik("tasks", "sample", "countdown", "-n", "2", "--option", "numbers=[2,3]", "--json").stdout for _ in range(2))
    problems = [json.loads(line) for line in first.splitlines()]
    assert first == second
    assert [problem["index"] for problem in problems] == [0, 1]
    assert problems[0]["split"] == "train"
    assert json.loads(spoutnik("tasks", "show", "countdown", "--json").stdout)["options"]["numbers"]


def test_doctor_answers_in_its_first_line():
    result = spoutnik("doctor")
    assert result.stdout.splitlines()[0].startswith("Ready: " if result.returncode == 0 else "Not ready: ")
    findings = json.loads(spoutnik("doctor", "--json").stdout)
    assert findings["ready"] == (result.returncode == 0)
    assert findings["cores"] == len(os.sched_getaffinity(0))


def test_a_training_command_restarts_itself_once_with_kept_memory_and_no_other_does(tmp_path):
    probe = tmp_path / "sitecustomize.py"
    probe.write_text("import os; open(os.environ['SEEN'], 'a').write(os.environ.get('GLIBC_TUNABLES', '-') + '\\n')\n")
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    clean = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    restarted, others = (["launch", "nowhere.toml"], ["plan", "recipe", "nothing"]), (["tasks", "list"], ["launch", "--help"])
    for arguments, starts in [*((arguments, 2) for arguments in restarted), *((arguments, 1) for arguments in others)]:
        seen = tmp_path / arguments[-1]
        subprocess.run(
            [sys.executable, "-m", "spoutnik", *arguments],
            env={**clean, "PYTHONPATH": path, "SEEN": str(seen)},
            capture_output=True,
            check=False,
        )
        lines = seen.read_text().splitlines()
        assert len(lines) == starts
        assert ("mmap_max=0" in lines[-1]) == (starts == 2)
