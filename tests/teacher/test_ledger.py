"""Never paid twice, never above the cap: also when processes are killed, and when several work at once."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spoutnik.errors
from spoutnik.teacher.ledger import TWICE, CapReachedError, Found, RequestLedger

ASKER = """
import json, sys
from pathlib import Path
from spoutnik.recipe import TeacherSpec
from spoutnik.teacher.base import Answer, Question, Sampling
from spoutnik.teacher.remote import RemoteTeacher

url, ledger, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
spec = TeacherSpec.model_validate({
    "name": "t", "dialect": "openai", "base_url": url, "model": "m", "price": {"prompt": 1.0, "completion": 1.0}, "max_cost": 1.0,
    "requests_per_minute": 10000, "tokens_per_minute": 10000000, "concurrency": 4,
})
questions = [Question(({"role": "user", "content": f"question {n}"},)) for n in range(count)]
print("ready", flush=True)
with RemoteTeacher(spec, None, ledger, "purse", {}, first_backoff_s=0.01) as teacher:
    results = teacher.answers(questions, Sampling(50), lambda place, result: None)
    totals = teacher.totals()
print(json.dumps({"results": [getattr(result, "text", None) for result in results], "errors": [getattr(r, "error", None) for r in results],
    "paid": totals.paid, "doubtful": totals.doubtful, "in_flight": totals.in_flight, "answers": totals.answers}))
"""
A_REQUEST = 15_000
"""What the server charges, in billionths."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def start(server, path):
    """Starts a process that asks `count` questions."""

    def run(count):
        environment = {**os.environ, "PYTHONPATH": str(Path(spoutnik.errors.__file__).parents[1])}
        command = [sys.executable, "-c", ASKER, server.url, str(path), str(count)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    return run


def finish(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(output)


def test_killed_at_any_moment_no_answer_is_paid_twice_and_nothing_paid_goes_unbooked(server, start, path):
    rng, count = random.Random(4), 60
    server.delay = 0.03
    kept: dict[str, int] = {}
    for _ in range(7):
        process = start(count)
        time.sleep(rng.uniform(0.02, 0.35))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        asked = Counter(server.bodies())
        ledger = RequestLedger(path)
        state = dict(ledger._db.execute("SELECT request, state FROM requests"))
        assert ledger.totals("purse").booked >= len(server.seen) * A_REQUEST, "whatever the server may have charged is on the bill"
        ledger.close()
        answered = {json.dumps(json.loads(request)["body"], sort_keys=True) for request, what in state.items() if what == "answered"}
        assert kept.keys() <= answered, "an answer that was kept is kept"
        assert all(asked[body] == before for body, before in kept.items()), "and is not asked for again"
        kept = {body: asked[body] for body in answered}
    assert kept, "some were answered before a kill"
    found = finish(start(count))
    counts = Counter(server.bodies())
    assert max(counts.values()) <= 2, "asked again only once"
    assert all(text is not None or error == TWICE for text, error in zip(found["results"], found["errors"], strict=True))
    assert found["answers"] >= count - 10
    assert found["in_flight"] == 0
    assert found["paid"] == found["answers"] * A_REQUEST
    assert found["paid"] + found["doubtful"] >= len(server.seen) * A_REQUEST


def test_several_processes_pay_once_and_all_get_the_answers(server, start):
    server.delay = 0.02
    processes = [start(30) for _ in range(3)]
    found = [finish(process) for process in processes]
    assert found[0]["results"] == found[1]["results"] == found[2]["results"] == [f"echo: question {n}" for n in range(30)]
    assert (len(server.seen), set(Counter(server.bodies()).values())) == (30, {1})


def test_a_request_of_a_living_owner_is_waited_for_and_one_of_a_dead_owner_is_asked_once_more(path):
    first, second, third = RequestLedger(path), RequestLedger(path), RequestLedger(path)
    assert first.claim("k", "{}", "p", 100, 1000) == Found("mine")
    assert second.claim("k", "{}", "p", 100, 1000) == Found("busy") == first.find("k")
    first.close()
    assert second.find("k") == Found("free")
    assert second.claim("k", "{}", "p", 100, 1000) == Found("mine")
    totals = second.totals("p")
    assert (totals.doubtful, totals.in_flight) == (100, 100)
    second.close()
    assert third.claim("k", "{}", "p", 100, 1000) == Found("failed", TWICE)
    totals = third.totals("p")
    assert (totals.doubtful, totals.in_flight) == (200, 0)
    third.close()
    assert list(path.with_name(path.name + ".owners").iterdir()) == []


def test_a_failure_of_the_moment_is_free_to_be_asked_again_and_a_final_one_is_not(path):
    ledger = RequestLedger(path)
    for final, expected in ((False, Found("free")), (True, Found("failed", "why"))):
        assert ledger.claim("k", "{}", "p", 100, 1000) == Found("mine")
        ledger.failed("k", "why", final=final, doubtful=False)
        assert ledger.find("k") == expected
    assert ledger.totals("p").booked == 0
    ledger.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["claim", "answer", "fail", "doubt", "again", "crash"]), st.integers(0, 5), st.integers(0, 300)), max_size=40
)


@settings(max_examples=40)
@given(OPERATIONS, st.integers(0, 900))
def test_whatever_happens_what_is_booked_stays_under_the_cap_and_no_answer_is_lost(operations, cap):
    """A provider charges at most what was booked; two purses do not touch each other."""
    with tempfile.TemporaryDirectory() as folder:
        ledger, worst, mine, answered = RequestLedger(Path(folder) / "l"), {}, set(), {}
        for what, number, amount in operations:
            key = f"key {number}"
            try:
                if what == "claim":
                    found = ledger.claim(key, "{}", "p", amount, cap)
                    assert (found.state == "answered") == (key in answered)
                    if found.state == "mine":
                        assert key not in mine
                        mine.add(key)
                        worst[key] = amount
                elif what == "crash":
                    ledger.close()
                    ledger, mine = RequestLedger(Path(folder) / "l"), set()
                elif key in mine and what == "again":
                    ledger.again(key, "p", amount, cap)
                    worst[key] = amount
                elif key in mine and what == "answer":
                    ledger.answered(key, f"answer {number}", min(amount, worst[key]), 1, 1)
                    answered[key] = f"answer {number}"
                    mine.remove(key)
                elif key in mine:
                    ledger.failed(key, "why", final=False, doubtful=what == "doubt")
                    mine.remove(key)
            except CapReachedError:
                pass
            assert ledger.totals("p").booked <= cap
            assert ledger.totals("other").booked == 0
        for key, text in answered.items():
            assert ledger.find(key) == Found("answered", text)
        ledger.close()
