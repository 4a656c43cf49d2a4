"""Countdown: targets are reachable, answers are judged exactly, traces are honest."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.tasks import Problem, make
from spoutnik.tasks.countdown import Countdown
from spoutnik.tasks.faithful import check_steps, supported
from spoutnik.tasks.reward import grade, is_well_formed


def puzzle(numbers: list[int], target: int, operators: str = "+-*/") -> Problem:
    return Problem("countdown", "train", 0, 0, "", "", {"numbers": numbers, "target": target, "operators": operators})


def verdict(answer: str, numbers: list[int], target: int, operators: str = "+-*/") -> bool:
    return Countdown().verify(puzzle(numbers, target, operators), answer)


def test_prompt_names_target_numbers_and_operators() -> None:
    problem = make("countdown", numbers=[3], operators="+-", high=30).problem("train", 0, 0)
    a, b, c = problem.data["numbers"]
    assert problem.prompt == f"Make {problem.data['target']} from {a}, {b}, {c} using + and -, each number once."


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("operators", ["+", "+-", "*/", "+-*/"])
def test_every_problem_is_solved_by_its_reference_answer(count: int, operators: str) -> None:
    task = make("countdown", numbers=[count], operators=operators, high=20, target_max=10**9)
    for index in range(20):
        problem = task.problem("held-out", 7, index)
        assert len(problem.data["numbers"]) == count
        assert task.verify(problem, problem.answer)


@pytest.mark.parametrize("answer", ["25+17-8", "25 + 17 - 8", "(25+17)-8", "25+(17-8)", "25-8+17=34", "17-8+25 = 34", "(((25)))+17-8"])
def test_right_answers_are_accepted(answer: str) -> None:
    assert verdict(answer, [25, 17, 8], 34)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "34",
        "25+17",
        "25+17-8-0",
        "25+17-8=35",
        "25+17-8=34=34",
        "25+17-8=33+1",
        "25+17-08",
        "25+17-8.0",
        "-8+25+17",
        "25+17-8 # or 34",
        "25+17--8",
        "2(17)",
        "2\N{FULLWIDTH DIGIT FIVE}+17-8",
        "٢٥+17-8",
        "25+17\N{MINUS SIGN}8",
        "25+17-8\n25+17+8",
        "twenty five",
        "25,17,8",
        "=34",
        "25+17-8=",
        "__import__('os')",
        "25+17-8" + " " * 300,
        "(" * 200 + "25" + ")" * 200,
        "(" * 40 + "25" + ")" * 40 + "+17-8",
        "9**9**9",
        "9" * 200,
        "25/0",
        "25/(17-17)",
    ],
)
def test_wrong_or_hostile_answers_are_refused(answer: str) -> None:
    assert not verdict(answer, [25, 17, 8], 34)


def test_each_number_is_used_exactly_as_often_as_given() -> None:
    assert verdict("8+8", [8, 8], 16)
    assert not verdict("8+8", [8, 4], 16)
    assert not verdict("8*2", [8, 8], 16)
    assert not verdict("8", [8, 8], 8)


def test_operators_that_were_not_given_are_refused() -> None:
    assert verdict("6*7", [6, 7], 42)
    assert not verdict("6*7", [6, 7], 42, operators="+-")


def test_division_is_exact() -> None:
    assert verdict("8/(3-8/3)", [8, 3, 8, 3], 24)
    assert not verdict("7/2*2", [7, 2, 3], 7)
    assert not verdict("10/3", [10, 3], 3)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("operators", ["+-", "+-*/"])
def test_a_trace_is_true_sums_distinct_candidates_and_a_right_answer(count: int, operators: str) -> None:
    task = make("countdown", numbers=[count], operators=operators, high=40)
    rng = random.Random(3)
    for index in range(30):
        problem = task.problem("train", 1, index)
        trace = task.trace(problem, rng)
        *tried, last = trace.split("\n</think>\n")[0].splitlines()
        reward = grade(task, problem, trace, thinking=True)
        assert (reward.accuracy, reward.format, reward.language) == (1.0, 1.0, 1.0)
        assert all(line.endswith(" no") for line in tried)
        assert last.endswith(f"={problem.data['target']}, {problem.data['target']}-{problem.data['target']}=0 yes")
        assert len({*tried, last}) == len(tried) + 1
        check = check_steps(trace)
        assert check.right == check.steps == count * (len(tried) + 1)
        assert supported(trace, problem.data["target"])


def test_a_trace_that_gives_up_answers_with_its_last_candidate() -> None:
    task, problem = Countdown(), puzzle([25, 17, 8, 3, 2], 9_999)
    trace = task.trace(problem, random.Random(0), effort=3)
    assert [line.split()[-1] for line in trace.splitlines()[:3]] == ["no"] * 3
    assert is_well_formed(trace, thinking=True)
    assert grade(task, problem, trace, thinking=True).accuracy == 0.0


def test_efforts_and_careless_claims_are_drawn_from_the_trace_options() -> None:
    problem = puzzle([25, 17, 8, 3, 2], 9_999)
    rng = random.Random(0)
    lengths = {make("countdown", trace_options={"efforts": [2, 5]}).trace(problem, rng).count(" no") for _ in range(30)}
    assert lengths == {2, 5}
    careless = make("countdown", trace_options={"careless": 1.0}).trace(problem, rng)
    assert careless.splitlines()[0].endswith(" yes")
    assert not supported(careless, 9_999)


def test_solutions_are_all_of_them_and_all_right() -> None:
    task = Countdown()
    for index in range(20):
        problem = task.problem("train", 5, index)
        found = task.solutions(problem)
        assert found
        assert len(set(found)) == len(found)
        assert all(task.verify(problem, expression) for expression in found)


@given(st.text(alphabet="0123456789+-*/()= .\n²٣", max_size=60))
def test_verify_answers_any_text(text: str) -> None:
    assert isinstance(verdict(text, [25, 17, 8], 34), bool)


@pytest.mark.parametrize(
    "options",
    [
        {"numbers": []},
        {"numbers": [1]},
        {"numbers": [7]},
        {"numbers": 3},
        {"low": 0},
        {"high": 8, "low": 9},
        {"operators": "+^"},
        {"operators": ""},
        {"target_max": "100"},
        {"trace_options": {"efort": [3]}},
        {"trace_options": {"careless": 2}},
        {"number": [3]},
    ],
)
def test_bad_options_are_refused_with_their_name(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        make("countdown", **options)


def test_options_without_problems_say_so() -> None:
    with pytest.raises(UserError, match="widen its options"):
        make("countdown", numbers=[2], low=1, high=1, operators="-").problem("train", 0, 0)
