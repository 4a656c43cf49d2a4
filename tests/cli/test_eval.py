"""`spoutnik eval` as a process, with a server of ours as the model over the network: figures, bills, plots, and kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from scripted import scripted_model
from served import random_model, scripted, serving

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.cli.eval_text import headline
from spoutnik.evaluate.answers import Answered
from spoutnik.evaluate.figures import Evaluation, Task
from spoutnik.evaluate.results import pairs_of, result_of
from spoutnik.recipe.tables import Price
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.taught import INSTRUCTION

SAYS_SEVEN = "one</think><answer>7</answer>"
PROBLEMS = 10


@pytest.fixture
def spoutnik(tmp_path):
    """Calls or starts the program in a folder of its own, where it also keeps its ledger of requests."""
    ours = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path)}

    def start(*arguments):
        command = [sys.executable, "-m", "spoutnik", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **ours}, **pipes)

    def call(*arguments):
        process = start(*arguments)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return out, errors

    call.start = start
    return call


@pytest.fixture
def questions(tmp_path):
    rows = [{"question": f"question {number}", "answer": "7" if number % 2 else "8"} for number in range(PROBLEMS)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--task", "jsonl:questions.jsonl", "--option", "belongs_to=held-out", "--problems", PROBLEMS]


def table_of(running, folder):
    """A file with a [[teacher]] table for a server; returns what names it to `spoutnik eval`."""
    settings = {"name": "far", "dialect": "openai", "base_url": f"{running.url}/v1", "model": "tiny", "max_cost": 1.0, "concurrency": 2}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    price = 'price = { prompt = 3.0, completion = 15.0, currency = "USD" }'
    (folder / "models.toml").write_text("\n".join(["[[teacher]]", *lines, price, ""]))
    return "models.toml#far"


def answered(running):
    """How many conversations the server answered."""
    text, path = httpx2.get(f"{running.url}/metrics").text, '[^"]*'
    counts = re.findall(rf'spoutnik_http_responses_total{{method="POST",path="{path}",status="200"}} (\S+)', text)
    return sum(map(float, counts))


def test_a_model_behind_our_server_stands_beside_one_here_with_its_bill_and_a_plot(spoutnik, questions, tmp_path):
    tokenizer = train_bpe(["one 7<answer> </answer> "] * 20, vocab_size=340)
    save_checkpoint(scripted_model(tokenizer, SAYS_SEVEN), tokenizer, tmp_path / "near")
    with serving(*scripted(SAYS_SEVEN)) as running:
        far = table_of(running, tmp_path)
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "question 3"}]
        body = {"model": "tiny", "messages": messages, "max_tokens": 40, "temperature": 0}
        usage = httpx2.post(f"{running.url}/v1/chat/completions", json=body).json()["usage"]
        settings = ["--max-new-tokens", 40, "--price", "cpu_core_hour=0.05", "--price", "currency=USD"]
        out, _ = spoutnik("eval", far, "near", *questions, *settings, "--out", "kept", "--plot", "plot.svg", "--json")
        before = answered(running)
        said, _ = spoutnik("eval", far, "near", *questions, *settings, "--out", "kept")
        assert answered(running) == before, "the answers are there"
    there, here = Evaluation.model_validate_json(out).results
    assert (there.pass_at_1.value, here.pass_at_1.value, there.failed, there.usage_unknown) == (0.5, 0.5, 0, 0)
    each = 3e-6 * usage["prompt_tokens"] + 15e-6 * usage["completion_tokens"]
    assert there.cost == pytest.approx(PROBLEMS * each)
    assert (there.cost_basis, there.currency, there.tokens_per_answer) == ("billed", "USD", usage["completion_tokens"])
    assert there.cost_per_solved == pytest.approx(2 * each)
    assert (here.cost_basis, here.currency, here.cost > 0, here.energy_kwh > 0) == ("machine", "USD", True, True)
    assert said.startswith("far solves 50.0% of 10 problems of jsonl:questions.jsonl (belongs_to held-out), near 50.0%: that is no proof")
    plot = (tmp_path / "plot.svg").read_text()
    assert "near" in plot
    assert "USD for a solved problem" in plot
    (tmp_path / "result.json").write_text(out)
    compared, _ = spoutnik("compare", "result.json", "--json")
    costs = {point["model"]: point["cost"] for point in json.loads(compared)["points"]}
    assert costs == {"far": pytest.approx(2 * each), "near": here.cost_per_solved}


def test_after_a_kill_no_answer_that_came_is_asked_for_again(spoutnik, questions, tmp_path):
    """Answers are in the file one by one, so what is lost are those in flight."""
    with serving(*random_model()) as running:
        command = ["eval", table_of(running, tmp_path), *questions, "--max-new-tokens", 300, "--temperature", 1, "--out", "kept"]
        process = spoutnik.start(*command)
        deadline = time.monotonic() + 60
        while not (kept := kept_lines(tmp_path)) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = kept_lines(tmp_path)
        assert 0 < len(kept) < PROBLEMS
        before = answered(running)
        out, _ = spoutnik(*command, "--json")
        assert kept_lines(tmp_path)[: len(kept)] == kept
        assert len(kept_lines(tmp_path)) == PROBLEMS
        assert answered(running) - before <= PROBLEMS - len(kept)
    assert Evaluation.model_validate_json(out).results[0].failed == 0


def kept_lines(folder):
    """All whole lines of kept answers."""
    files = folder.glob("kept/stages/eval/answers/*")
    return [line for path in files for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--plot", "plot.png"], "ends in .svg or .html"),
    (["--plot", "plot.svg", "--task", "words"], "there are 2 tasks"),
    (["--against", "nowhere"], "no training data at nowhere"),
    (["--task", "lm-eval:gsm8k"], "takes its data from the network"),
])  # fmt: skip
def test_what_cannot_be_drawn_or_looked_into_is_refused_before_anything_runs(spoutnik, tmp_path, arguments, expected):
    tokenizer = train_bpe(["one"], vocab_size=300)
    save_checkpoint(scripted_model(tokenizer, "one"), tokenizer, tmp_path / "near")
    process = spoutnik.start("eval", "near", "--task", "countdown", *arguments)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert expected in errors.splitlines()[-1]


def evaluation(solved):
    """Models that solve so many of 100 problems, the first ones."""
    tables = {name: [[Answered(number, 0, "", correct=number < right)] for number in range(100)] for name, right in solved.items()}
    return Evaluation(
        date="", spoutnik="", seed=0, temperature=0, max_new_tokens=1, dtype="float32", models=[],
        tasks=[Task(name="t", split="held-out", problems=100)],
        results=[result_of(name, "t", table, False, Price()) for name, table in tables.items()], pairs=pairs_of("t", tables),
    )  # fmt: skip


@pytest.mark.parametrize(("solved", "expected"), [
    ({"a": 50}, "a solves 50.0% of 100 problems of t (95% interval 40.4% to 59.6%)."),
    ({"a": 20, "b": 50}, "b solves 50.0% of 100 problems of t, 30.0 points more than a (p < 0.001)."),
    ({"a": 49, "b": 50}, "b solves 50.0% of 100 problems of t, a 49.0%: that is no proof of a difference (p = 1.00)."),
    (
        {"a": 20, "b": 50, "c": 48},
        "b solves 50.0% of 100 problems of t, more than a 20.0% (p < 0.001); c 48.0%: that is no proof of a difference (p = 0.50).",
    ),
    ({"a": 20, "b": 50, "c": 20}, "b solves 50.0% of 100 problems of t, more than a 20.0% and c 20.0% (p < 0.001)."),
    (
        {"a": 49, "b": 50, "c": 48, "d": 47, "e": 46},
        "b solves 50.0% of 100 problems of t, a 49.0%, c 48.0%, d 47.0% and 1 more: that is no proof of a difference (p = 1.00).",
    ),
])  # fmt: skip
def test_the_first_line_names_the_best_whom_it_beats_and_who_may_be_as_good(solved, expected):
    assert headline(evaluation(solved)) == expected
