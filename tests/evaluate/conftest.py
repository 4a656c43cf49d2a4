"""Graded answers by the handful."""

import pytest

from spoutnik.evaluate.answers import Answered


@pytest.fixture
def answered():
    """`answered([[1, 0], [1, 1]])`: two problems, two answers to each, of which three are right; the vote is the verdict."""

    def make(right, **changes):
        return [
            [
                Answered(
                    number, sample, f"problem {number}", vote=str(one), correct=bool(one), **{"tokens": 10, "time": 86_400.0, **changes}
                )
                for sample, one in enumerate(each)
            ]
            for number, each in enumerate(right)
        ]

    return make
