"""Samples of a policy and what is known of them."""

import pytest

from spoutnik.engine.request import Completion
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem
from spoutnik.train.rollouts import judge, rollout_engine, rollout_metrics, sample_rollouts

PROBLEM = Problem(
    "countdown",
    "train",
    0,
    0,
    "Make 7 from 3, 4 using + and -, each number once.",
    "3+4",
    {"numbers": [3, 4], "target": 7, "operators": "+-"},
)
PROMPT = "<|Assistant|><think>\n"


def judged(text, finish_reason="stop", prompt=PROMPT):
    return judge(make("countdown", operators="+-"), PROBLEM, prompt, [1, 2], Completion(text, [3, 4, 5], [-0.1] * 3, finish_reason))


def test_a_right_answer_with_right_sums_is_supported():
    found = judged("4-3=1 no\n3+4=7 yes\n</think>\n<answer>3+4</answer>")
    assert (found.reward.accuracy, found.reward.format, found.steps, found.right_steps, found.supported) == (1.0, 1.0, 2, 2, True)


def test_a_right_answer_after_wrong_sums_is_right_but_not_supported():
    found = judged("3+4=9 no\n4-3=7 yes\n</think>\n<answer>3+4</answer>")
    assert (found.reward.accuracy, found.steps, found.right_steps, found.supported) == (1.0, 2, 0, False)


def test_the_prompt_decides_whether_the_thinking_was_open():
    text = "3+4=7</think><answer>3+4</answer>"
    assert judged(text).reward.format == 1.0
    assert judged(text, prompt="<|im_start|>assistant\n").reward.format == 0.0
    assert judged("<think>" + text, prompt="<|im_start|>assistant\n").reward.format == 1.0


def test_an_answer_that_ran_out_of_tokens_is_truncated():
    found = judged("3+4", finish_reason="length")
    assert found.truncated
    assert found.reward.accuracy == 0.0
    assert not found.supported


def test_a_verifier_that_raises_is_counted_as_a_fault():
    class Broken:
        name = "broken"

        def verify(self, problem, answer):
            raise RuntimeError("it hung")

    found = judge(Broken(), PROBLEM, PROMPT, [1], Completion("</think><answer>3+4</answer>", [3], [-0.1], "stop"))
    assert found.reward.faulted
    assert rollout_metrics([found, judged("")])["faulted"] == 1.0


def test_metrics_are_means_and_faithfulness_a_share_of_written_sums():
    metrics = rollout_metrics([judged("3+4=7\n3+4=8\n</think>\n<answer>3+4</answer>"), judged("hm", finish_reason="length")])
    assert metrics["accuracy"] == metrics["truncated"] == metrics["faithful"] == 0.5
    assert metrics["response_length"] == 3
    assert "faithful" not in rollout_metrics([judged("hm")])


def test_samples_come_group_by_group_and_depend_on_nothing_but_weights_and_seed(model, tokenizer):
    task = make("countdown", numbers=[2], high=9)
    problems = [task.problem("train", 0, index) for index in range(2)]
    engine = rollout_engine(model, tokenizer, 6)
    first = sample_rollouts(engine, task, problems, 3, 1.0, 5, seed=1)
    assert [each.problem for each in first] == [problems[0]] * 3 + [problems[1]] * 3
    assert len({tuple(each.token_ids) for each in first}) > 1
    assert all(len(each.logprobs) == len(each.token_ids) <= 5 for each in first)
    assert sample_rollouts(engine, task, problems, 3, 1.0, 5, seed=1) == first, "an engine that has worked before"
    again = sample_rollouts(rollout_engine(model, tokenizer, 2), task, problems, 3, 1.0, 5, seed=1)
    assert [each.token_ids for each in again] == [each.token_ids for each in first]
    other = sample_rollouts(engine, task, problems, 3, 1.0, 5, seed=2)
    assert [each.token_ids for each in other] != [each.token_ids for each in first]


@pytest.mark.parametrize("count", [1, 4])
def test_the_same_problem_gives_the_same_samples_whatever_else_is_asked(model, tokenizer, count):
    task = make("countdown", numbers=[2], high=9)
    problems = [task.problem("train", 0, index) for index in range(count)]
    alone = sample_rollouts(rollout_engine(model, tokenizer, 2), task, problems[:1], 2, 1.0, 4, seed=3)
    among = sample_rollouts(rollout_engine(model, tokenizer, 2 * count), task, problems, 2, 1.0, 4, seed=3)
    assert [each.token_ids for each in among][:2] == [each.token_ids for each in alone]
