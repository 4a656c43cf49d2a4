"""Graded answers by the handful, and models over the network."""

import pytest

from spoutnik.evaluate.answers import Answered
from spoutnik.recipe import TeacherSpec


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


@pytest.fixture
def remote(server, tmp_path, context):
    """Makes a model over the network known to the context."""

    def make_known(name, **changes):
        settings = {"dialect": "openai", "base_url": server.url, "model": "m", "price": {"prompt": 1.0, "completion": 1.0}, "max_cost": 1.0,
                    "ledger": str(tmp_path / "ledger.sqlite"), "requests_per_minute": 10_000, "timeout_s": 5.0}  # fmt: skip
        context.teachers[name] = TeacherSpec.model_validate({"name": name, **settings, **changes})

    return make_known
