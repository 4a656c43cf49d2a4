"""Progress is plain lines in a log and never more than one every few seconds."""

import pytest

from spoutnik.run import progress
from spoutnik.run.progress import Progress, duration


def test_a_log_gets_few_lines_and_always_the_last(capsys):
    with Progress("base", 1000, terminal=False) as shown:
        for step in range(1, 1001):
            shown.update(step, {"loss": 2.5, "tokens_per_s": 12345.6})
    assert capsys.readouterr().err == "base  1000/1000  loss 2.5  tokens/s 12,346\n"


def test_time_left_counts_only_the_steps_made_since_resuming(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 100.0, 100.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("base", 1000, done=500, terminal=False) as shown:
        shown.update(510, {"reward": 0.25})
    assert capsys.readouterr().err == "base  510/1000  reward 0.25  1 h 22 min left\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (80, "1 min 20 s"), (900, "15 min"), (3590, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
