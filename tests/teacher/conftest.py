"""The table of a teacher that points at a server."""

import pytest

from spoutnik.recipe import TeacherSpec


@pytest.fixture
def spec_of():
    """A teacher's table that points at a server; 1 a million tokens, so that a token costs a thousand billionths."""

    def make(server, **changes):
        settings = {
            "name": "t", "dialect": "openai", "base_url": server.url, "model": "m", "price": {"prompt": 1.0, "completion": 1.0},
            "max_cost": 1.0, "terms": "allowed", "requests_per_minute": 10_000, "tokens_per_minute": 10_000_000, "timeout_s": 5.0,
        }  # fmt: skip
        return TeacherSpec.model_validate({**settings, **changes})

    return make
