"""Distillation from a teacher over the network through the command line: samples that a verifier accepts, and a judge's choice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted import scripted_model

import spoutnik.errors
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.recipe import JudgeStage, parse_recipe
from spoutnik.run.record import read
from spoutnik.tasks import make
from spoutnik.teacher.base import Answer, Usage
from spoutnik.teacher.opening import ledger_of
from spoutnik.teacher.questions import read_prompts
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.judged import Case, Tally, _better, _let_grade, _orders

KEY = "sk-a-key-that-nobody-may-see"
WORDS = "I have read the terms and answer for this use."
RECIPE = """
name = "taught"
seed = 5

[[teacher]]
name = "big"
dialect = "openai"
base_url = "{url}"
model = "big-1"
api_key_env = "BIG_KEY"
price = {{ prompt = 1.0, completion = 1.0 }}
max_cost = {max_cost}
requests_per_minute = 10000
tokens_per_minute = 10000000
{terms}

[[stage]]
kind = "sample"
name = "answers"
from = "big"
task = {{ name = "countdown", numbers = [2], high = 9 }}
problems = 8
samples_per_problem = 2
max_new_tokens = 60

[[stage]]
kind = "distill"
name = "student"
from = "{student}"
mode = "samples"
data = "answers"
steps = 2
batch_size = 2
learning_rate = 1e-4

[[stage]]
kind = "judge"
name = "judged"
from = "student"
teacher = "big"
questions = "{questions}"
rubric = "Right and short."
keep_from = 6
samples_per_problem = 1
temperature = 0.0
max_new_tokens = 16

[[stage]]
kind = "sft"
name = "better"
from = "student"
data = "judged"
steps = 1
batch_size = 1
learning_rate = 1e-6

[[stage]]
kind = "logits"
name = "stored"
from = "student"
data = "answers"
top_k = 20

[[stage]]
kind = "distill"
name = "informed"
from = "{student}"
mode = "logits"
data = "stored"
steps = 1
batch_size = 2
learning_rate = 1e-4

[[stage]]
kind = "report"
name = "report"
"""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "student"
    tokenizer = train_bpe(["one two three four five six "] * 20, vocab_size=320)
    save_checkpoint(scripted_model(tokenizer, "one two</think> three four"), tokenizer, path)
    return path


@pytest.fixture
def write(server, tmp_path, student):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(3)))

    def recipe(terms=f'accept_terms = "{WORDS}"', max_cost=1.0):
        text = RECIPE.format(url=server.url, terms=terms, student=student, questions=tmp_path / "questions.jsonl", max_cost=max_cost)
        (tmp_path / "taught.toml").write_text(text)

    return recipe


@pytest.fixture
def launch(tmp_path):
    def start(*arguments, out="run", **environment):
        source = str(Path(spoutnik.errors.__file__).parents[1])
        known = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "data"), "BIG_KEY": KEY}
        command = [sys.executable, "-m", "spoutnik", "launch", "taught.toml", "--out", out, *arguments]
        environment = {**os.environ, **known, **environment}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def big(messages):
    """Solves every other puzzle; as a judge gives the second question a grade that cannot be read, the others an 8."""
    system, asked = messages[0]["content"], messages[-1]["content"]
    number = re.search(r"GRADE-([0-9a-f]+)", system)
    if number:
        return ("It deserves a 10.", "") if "question 1" in asked else (f"Fine.\nGRADE-{number[1]}: 8", "")
    puzzles = make("countdown", numbers=[2], high=9)
    seed = parse_recipe({"name": "taught", "seed": 5, "stage": [{"kind": "report", "name": "answers"}]}, "x").stage_seed("answers")
    problem = next(problem for problem in (puzzles.problem("train", seed, n) for n in range(8)) if problem.prompt == asked)
    answer = problem.answer if problem.index % 2 == 0 else "1+1"
    return f"So it is this.\n<answer>{answer}</answer>", f"{problem.answer} does it."


def test_a_recipe_with_a_teacher_end_to_end(server, write, launch, tmp_path):
    server.answer = big
    write()
    process = launch()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "answers: big gets 16 requests: at most " in errors
    out = tmp_path / "run"
    samples = rows(out / "stages/answers/samples.jsonl")
    assert [row["index"] for row in samples] == [0, 2, 4, 6]
    for row in samples:
        assert re.fullmatch(r"<think>\n.* does it\.\n</think>\n<answer>.*</answer>", row["completion"])
        [teacher] = row["teachers"]
        assert (teacher["model"], teacher["terms"], teacher["accepted"]) == ("big-1", "unknown", WORDS)
    judged = rows(out / "stages/judged/samples.jsonl")
    assert [(row["prompt"], row["grade"], row["judge"]) for row in judged] == [("question 0", 8, "big"), ("question 2", 8, "big")]
    assert judged[0]["teachers"] == samples[0]["teachers"]
    for made in ("stages/answers", "stages/judged", "checkpoints/student", "checkpoints/better", "stages/stored", "checkpoints/informed"):
        assert f"> {WORDS}" in (out / made / "README.md").read_text(encoding="utf-8")
    assert json.loads((out / "checkpoints/better/spoutnik.json").read_text())["teachers"] == samples[0]["teachers"]
    assert "Teachers</h2>" in (out / "report.html").read_text(encoding="utf-8")
    events = read(out / "record.jsonl")
    [figures] = [event for event in events if event["event"] == "judged"]
    assert (figures["asked"], figures["graded"], figures["unreadable"], figures["kept"], figures["grade"]) == (3, 2, 1, 2, 8.0)
    bills = [event for event in events if event["event"] == "teacher"]
    assert [(bill["requests"], bill["answers"], bill["failures"]) for bill in bills] == [(16, 16, 0), (3, 3, 0)]
    assert bills[1]["paid"] == pytest.approx(19 * 15e-6)
    assert len(server.seen) == 19
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()

    command = [sys.executable, "-m", "spoutnik", "teachers", "taught.toml", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(spoutnik.errors.__file__).parents[1]), "XDG_DATA_HOME": str(tmp_path / "data")}
    [figures] = json.loads(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60).stdout)
    assert figures["paid"] == pytest.approx(19 * 15e-6)
    assert figures["stages"] == {"answers": "16 requests, all answered before: this costs nothing", "judged": None}

    process = launch(out="another")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "16 requests, all answered before: this costs nothing" in errors
    assert len(server.seen) == 19, "another run of the recipe pays nothing again"
    assert (tmp_path / "another/checkpoints/better/model.safetensors").read_bytes() == (
        out / "checkpoints/better/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("terms", "environment", "expected"),
    [
        ("", {}, "not known whether they allow training"),
        ('terms = "forbidden"', {}, "forbid training"),
        ('terms = "allowed"', {"BIG_KEY": ""}, "environment variable BIG_KEY"),
        ('terms = "allowed"', {"BIG_KEY": "two words"}, "no key"),
    ],
)
def test_what_may_not_be_asked_is_refused_before_anything_runs(server, write, launch, tmp_path, terms, environment, expected):
    write(terms)
    process = launch(**environment)
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, output) == (1, "")
    [sentence] = [line for line in errors.splitlines() if line.startswith("spoutnik: ")]
    assert sentence.startswith("spoutnik: taught.toml: stage 'answers': ")
    assert expected in sentence
    assert "Traceback" not in errors
    assert server.seen == []


def test_questions_that_are_not_there_are_missed_before_anything_is_paid(server, write, launch, tmp_path):
    write('terms = "allowed"')
    (tmp_path / "questions.jsonl").unlink()
    process = launch()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "stage 'judged': The questions in" in errors
    assert server.seen == []


def test_stopped_and_killed_the_same_command_goes_on_and_pays_once(server, write, launch):
    server.answer, server.delay = big, 0.15
    write('terms = "allowed"')
    process = launch()
    wait_for(lambda: len(server.seen) >= 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "run the same command again to go on" in errors
    before = len(server.seen)
    assert 3 <= before < 16
    process = launch()
    wait_for(lambda: len(server.seen) >= before + 3)
    process.kill()
    process.communicate()
    server.delay = 0.0
    process = launch()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert 19 <= len(server.seen) <= 19 + 4, "only what was in flight when the program was killed was asked twice"


def test_at_the_cap_the_run_ends_in_a_sentence_and_goes_on_when_it_is_raised(server, write, launch):
    server.answer = big
    write('terms = "allowed"', max_cost=0.0005)
    process = launch()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "more than max_cost = 0.0005; raise it and run the same command again" in errors
    assert 0 < len(server.seen) < 19
    write('terms = "allowed"')
    process = launch()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert len(server.seen) == 19


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def answer(text, finish="stop"):
    return Answer(text, "", finish, Usage(1, 1))


def test_of_two_answers_the_one_that_wins_in_both_places_is_taken(server, spec_of, context, monkeypatch, tmp_path):
    """A judge that likes the longer answer, and one that likes the first."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    context.teachers = {"t": spec_of(server)}
    stage = JudgeStage.model_validate(
        {"name": "j", "from": "x", "teacher": "t", "questions": "q.jsonl", "rubric": "r", "scale": "a/b", "max_new_tokens": 5}
    )
    written = [[answer("a long answer"), answer("short")], [answer("short"), answer("a long answer")], [answer("same"), answer("same")]]
    written.append([answer("cut", "length"), answer("whole")])

    def judge(messages):
        number, text = re.search(r"GRADE-([0-9a-f]+)", messages[0]["content"])[1], messages[1]["content"]
        first, second = (re.search(rf"<answer-{name} {number}>\n(.*)\n</", text)[1] for name in "AB")
        return f"GRADE-{number}: {'A' if 'favour' in text or len(first) > len(second) else 'B'}", ""

    server.answer = judge
    for prompts, expected in ((["q"] * 4, [(0, "better"), (1, "better"), None, None]), (["favour the first"] * 4, [None] * 4)):
        tally = Tally()
        cases = [Case(place, order) for place, answers in enumerate(written) for order in _orders(answers, stage, tally)]
        grades = _let_grade(stage, prompts, written, cases, tally, context)
        assert [_better(place, grades) for place in range(4)] == expected
        assert (tally.asked, tally.graded, tally.unfinished) == (4, 4, 1)
    assert ledger_of(spec_of(server)) == tmp_path / "spoutnik" / "teachers.sqlite"


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": 3}', '{"prompt": " "}', '{"question": "x"}'])
def test_a_line_that_is_no_question_is_named(tmp_path, line):
    (tmp_path / "q.jsonl").write_text('{"prompt": "one"}\n\n' + line)
    with pytest.raises(spoutnik.errors.UserError, match="line 3 is no question"):
        read_prompts(tmp_path / "q.jsonl")
