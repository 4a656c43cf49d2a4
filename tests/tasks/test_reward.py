"""Rewards: each part alone, then attacked the way a policy would."""

from dataclasses import dataclass

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import Problem
from spoutnik.tasks.countdown import Countdown
from spoutnik.tasks.reward import Reward, extract_answer, grade, language_consistency

PROBLEM = Problem("countdown", "train", 0, 0, "", "25+17-8", {"numbers": [25, 17, 8], "target": 34, "operators": "+-"})
GOOD = "25+17=42, 42-8=34 yes\n</think>\n<answer>25+17-8</answer>"


def graded(completion: str, thinking: bool = True) -> Reward:
    return grade(Countdown(), PROBLEM, completion, thinking)


def test_a_good_completion_earns_every_part_from_both_starting_states() -> None:
    assert graded(GOOD) == graded("<think>" + GOOD, thinking=False) == Reward(1.0, 1.0, 1.0)


def test_a_right_answer_in_bad_format_is_still_accurate() -> None:
    assert graded("sum\n</think>\nIt is <answer>25+17-8</answer>, I think.") == Reward(1.0, 0.0, 1.0)
    assert graded("<answer>25+17-8</answer>", thinking=False) == Reward(1.0, 0.0, 1.0)


def test_a_wrong_answer_in_good_format_earns_only_the_format() -> None:
    assert graded("so\n</think>\n<answer>25+17+8</answer>") == Reward(0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "</think>",
        "so</think>",
        "so</think><answer></answer>",
        "so</think><answer>  \n </answer>",
        "so</think><answer>25+17-8",
        "so</think>25+17-8</answer>",
        "so</think></answer>25+17-8<answer>",
        "so</think><answer>25+17+8</answer><answer>25+17-8</answer>",
        "so</think><answer>25+17-8</answer><answer>25+17-8</answer>",
        "so</think><answer><answer>25+17-8</answer></answer>",
        "so</think><answer><think>25+17-8</think></answer>",
        "<answer>25+17-8</answer>",
        "so <answer>25+17-8</answer></think>",
        "so <answer>25+17-8</answer></think>34",
        "so</think><ANSWER>25+17-8</ANSWER>",
        "so</think><answer>25+17-8 or 25+17+8</answer>",
        "so</think><answer>34</answer>",
        "so</think><answer>25+17-8=42</answer>",
        "so</think><answer>17+17+0</answer>",
        "so</think><answer>9**9**9</answer>",
        "so</think><answer>" + "9" * 100_000 + "</answer>",
        "so</think><answer>" + "(" * 100_000 + "</answer>",
        "so</think><answer>2\N{FULLWIDTH DIGIT FIVE}+17-8</answer>",
    ],
)
def test_hacks_earn_no_accuracy_and_are_no_fault(completion: str) -> None:
    reward = graded(completion)
    assert reward.accuracy == 0.0
    assert not reward.faulted


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "</think>\n<answer>25+17-8</answer>",
        " \n</think>\n<answer>25+17-8</answer>",
        "so</think>so</think><answer>25+17-8</answer>",
        "so<think></think><answer>25+17-8</answer>",
        "<think>so</think><answer>25+17-8</answer>",
        "so <answer>1</answer></think><answer>25+17-8</answer>",
        "so <answer></think><answer>25+17-8</answer>",
        "so</think><answer>25+17-8</answer> and more",
        "so</think><answer>25+17-8</answer><think></think>",
        "so</think><answer></answer>",
        "so</think><answer>1</answer><answer>2</answer>",
        "so",
    ],
)
def test_broken_formats_earn_no_format(completion: str) -> None:
    assert graded(completion).format == 0.0


def test_an_answer_hidden_in_the_thinking_does_not_count() -> None:
    assert graded("<answer>25+17-8</answer></think><answer>25+17+8</answer>") == Reward(0.0, 0.0, 1.0)
    assert graded("<answer>25+17+8</answer></think><answer>25+17-8</answer>") == Reward(1.0, 0.0, 1.0)


def test_extract_answer_trims_and_takes_exactly_one() -> None:
    assert extract_answer("so\n<answer> 3 \n</answer>.") == "3"
    assert extract_answer("3") is None


@dataclass
class Raising(Countdown):
    def verify(self, problem: Problem, answer: str) -> bool:
        raise ArithmeticError(f"no idea about {answer}")


def test_a_verifier_that_raises_is_a_fault_and_not_a_silent_zero() -> None:
    reward = grade(Raising(), PROBLEM, GOOD, thinking=True)
    assert reward.faulted
    assert reward.fault == "ArithmeticError: no idea about 25+17-8"
    assert (reward.accuracy, reward.format) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("", "en", 1.0),
        ("25+17=42 ... 34!", "en", 1.0),
        ("so we add 17", "en", 1.0),
        ("so we 加 17", "en", 2 / 3),
        ("我们加 seventeen", "zh", 3 / 4),
        ("also und nicht so", "en", 0.5),
        ("привет world", "en", 0.5),
        ("café naïve", "en", 1.0),
        ("we加上it", "en", 0.5),
    ],
)
def test_language_is_the_share_of_words_in_the_target_language(text: str, language: str, share: float) -> None:
    assert language_consistency(text, language) == pytest.approx(share)


def test_only_the_thinking_is_read_for_its_language() -> None:
    assert graded("so we add</think><answer>我们加上</answer>").language == 1.0
    assert graded("我们 add</think><answer>1</answer>").language == pytest.approx(1 / 3)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match="choose one"):
        language_consistency("so", "tlh")


def test_a_fault_of_input_is_not_hidden_as_a_fault_of_the_verifier() -> None:
    class Unavailable(Countdown):
        def verify(self, problem: Problem, answer: str) -> bool:
            raise UserError("a package is missing")

    with pytest.raises(UserError, match="missing"):
        grade(Unavailable(), PROBLEM, GOOD, thinking=True)
