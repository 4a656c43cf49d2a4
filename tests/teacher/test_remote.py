"""A teacher over the network, against a real server that refuses, breaks, hangs and lies."""

import os
import signal
import threading
import time

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe import TeacherPrice
from spoutnik.run import interrupt
from spoutnik.teacher import remote
from spoutnik.teacher.base import Answer, Failure, Question, Sampling, Usage
from spoutnik.teacher.money import worst_cost
from spoutnik.teacher.remote import RemoteTeacher

SAMPLING = Sampling(100)
PRICE = TeacherPrice(prompt=1.0, completion=1.0)
KEY = "sk-the-secret-key-of-the-tests"


def questions(count, text="what is {}?"):
    return [Question(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text.format(n)})) for n in range(count)]


@pytest.fixture
def ask(server, spec_of, tmp_path):
    """Asks with a fresh teacher on the same ledger, as a new process would; returns the results and what was spent."""

    def call(asked, sampling=SAMPLING, key=KEY, **changes):
        spec = spec_of(server, **changes)
        with RemoteTeacher(spec, key, tmp_path / "ledger.sqlite", "purse", {"terms": "allowed"}, first_backoff_s=0.01) as teacher:
            try:
                return teacher.answers(asked, sampling, lambda place, result: None), teacher.totals()
            except UserError as error:
                return str(error), teacher.totals()

    return call


PATHS = {
    "openai": "/chat/completions", "anthropic": "/v1/messages", "deepseek": "/chat/completions", "mistral": "/chat/completions",
}  # fmt: skip


@pytest.mark.parametrize("dialect", PATHS)
def test_every_dialect_brings_text_thinking_and_what_it_cost(server, ask, dialect):
    server.dialect = dialect
    server.answer = lambda messages: (f"text of {messages[-1]['content']}", "thoughts")
    results, totals = ask(questions(3), dialect=dialect, options={"top_k": 3})
    cost = 15 * 1000
    assert results == [
        Answer(f"text of what is {n}?", "thoughts", "stop", Usage(10, 5), cost, "m-1") for n in range(3)
    ]  # fmt: skip
    assert (totals.paid, totals.doubtful, totals.in_flight, totals.answers) == (3 * cost, 0, 0, 3)
    found_path, headers, body = server.seen[0]
    lower = {name.lower(): value for name, value in headers.items()}
    assert found_path == PATHS[dialect]
    assert (body["model"], body["max_tokens"], body["top_k"]) == ("m", 100, 3)
    assert "temperature" not in body
    if dialect == "anthropic":
        assert (lower["x-api-key"], lower["anthropic-version"]) == (KEY, "2023-06-01")
        assert body["system"] == "Be brief."
        assert [message["role"] for message in body["messages"]] == ["user"]
    else:
        assert lower["authorization"] == f"Bearer {KEY}"
        assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_deepseeks_cached_tokens_have_their_own_price_and_its_thinking_a_switch(server, ask):
    server.dialect, server.usage = "deepseek", {"prompt": 10, "completion": 5, "cached": 8}
    price = {"prompt": 1.0, "completion": 2.0, "cached": 0.1}
    [answer], totals = ask(questions(1), dialect="deepseek", price=price, options={"thinking": {"type": "disabled"}})
    assert answer.usage == Usage(10, 5, 8)
    assert answer.cost == totals.paid == 2 * 1000 + 8 * 100 + 5 * 2000
    assert server.seen[0][2]["thinking"] == {"type": "disabled"}
    with pytest.raises(ValueError, match="enabled"):
        ask(questions(1), dialect="deepseek", options={"thinking": True})


@pytest.mark.parametrize("dialect", ["deepseek", "mistral"])
def test_a_server_that_breaks_off_is_asked_again(server, ask, dialect):
    server.dialect, server.faults = dialect, ["broken-off"]
    results, totals = ask(questions(1), dialect=dialect)
    assert results[0].text == "echo: what is 0?"
    assert (totals.paid, totals.doubtful) == (15_000, worst_cost(questions(1)[0].messages, 100, PRICE))


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("status", [400, 422])
def test_every_dialects_errors_are_told_in_words(server, ask, dialect, status):
    server.dialect, server.faults = dialect, [status]
    [failure], _ = ask(questions(1), dialect=dialect)
    where = "body.model: " if (dialect, status) == ("mistral", 422) else ""
    sent = "[key]" if dialect == "anthropic" else "Bearer [key]"
    assert failure == Failure(f"HTTP {status}: {where}no, not with {sent}")


@pytest.mark.parametrize(("dialect", "field"), [("openai", "seed"), ("deepseek", "seed"), ("mistral", "random_seed")])
def test_a_fixed_seed_gives_each_sample_of_a_question_its_own(server, ask, dialect, field):
    [question] = questions(1)
    ask([Question(question.messages, sample) for sample in range(3)], dialect=dialect, options={field: 7}, concurrency=1)
    assert [body[field] for _, _, body in server.seen] == [7, 8, 9]


def test_what_was_answered_is_never_asked_again_but_another_sample_or_parameter_is(server, ask):
    first, _ = ask(questions(3))
    again, totals = ask(questions(3))
    assert again == first
    assert len(server.seen) == totals.answers == 3
    ask([Question(question.messages, sample=1) for question in questions(3)])
    ask(questions(3), Sampling(100, 0.5))
    ask(questions(3), Sampling(99))
    assert len(server.seen) == 12


def test_questions_that_are_the_same_are_asked_once_though_they_come_together(server, ask):
    server.delay = 0.05
    results, totals = ask(questions(1) * 6)
    assert len(set(results)) == 1
    assert (len(server.seen), totals.answers) == (1, 1)


@pytest.mark.parametrize("fault", [429, 500, 503, 529, 408, (429, {"retry-after": "0"}), (503, {"retry-after": "nonsense"})])
def test_refusals_that_cost_nothing_are_tried_again_and_book_nothing(server, ask, fault):
    server.faults = [fault, fault]
    results, totals = ask(questions(1))
    assert results[0].text == "echo: what is 0?"
    assert len(server.seen) == 3
    assert (totals.paid, totals.doubtful, totals.in_flight) == (15_000, 0, 0)


@pytest.mark.parametrize("fault", ["disconnect", "malformed", "half", "hang", "keep-alive"])
def test_an_attempt_that_may_have_been_paid_stays_on_the_bill(server, ask, fault):
    server.faults = [fault]
    results, totals = ask(questions(1), timeout_s=3.0)  # long enough for an answer beside other work
    assert results[0].text == "echo: what is 0?"
    assert (totals.paid, totals.in_flight) == (15_000, 0)
    assert totals.doubtful == worst_cost(questions(1)[0].messages, 100, PRICE)


@pytest.mark.parametrize("fault", ["no-usage", "odd-usage"])
def test_where_the_server_does_not_say_what_it_used_the_worst_is_booked(server, ask, fault):
    server.faults = [fault]
    [answer], totals = ask(questions(1))
    assert not answer.usage.known
    assert totals.paid == answer.cost == worst_cost(questions(1)[0].messages, 100, PRICE)


def test_what_is_wrong_with_one_request_fails_that_one_for_good(server, ask):
    server.faults = [400]
    results, totals = ask(questions(3), concurrency=1)
    assert isinstance(results[0], Failure)
    assert "HTTP 400" in results[0].error
    assert [type(result) for result in results[1:]] == [Answer, Answer]
    assert totals.booked == 30_000
    results, _ = ask(questions(3))
    assert len(server.seen) == 3, "neither the refused one nor the answered ones are asked again"
    assert isinstance(results[0], Failure)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 302])
def test_what_is_wrong_with_all_requests_ends_the_run_and_nothing_is_lost(server, ask, status):
    server.faults = [None, status]
    said, totals = ask(questions(4), concurrency=1)
    assert f"HTTP {status}" in said
    assert said.endswith("mend that and run the same command again.")
    assert (len(server.seen), totals.answers, totals.doubtful, totals.in_flight) == (2, 1, 0, 0)
    results, totals = ask(questions(4), concurrency=1)
    assert all(isinstance(result, Answer) for result in results)
    assert (len(server.seen), totals.answers) == (5, 4)


def test_a_server_that_refuses_everything_is_not_asked_a_thousand_times(server, ask):
    server.faults = [422] * 1000
    said, _ = ask(questions(100), concurrency=2)
    assert "8 requests in a row" in said
    assert len(server.seen) < 12


def test_a_server_that_stays_down_is_given_up_and_asked_again_by_the_next_run(server, ask, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    server.faults = [500] * 3
    results, _ = ask(questions(2), concurrency=1)
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], Answer)
    results, _ = ask(questions(2), concurrency=1)
    assert isinstance(results[0], Answer)
    assert len(server.seen) == 5


def test_nobody_at_home_costs_nothing(server, ask, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    results, totals = ask(questions(1), base_url="http://127.0.0.1:9")
    assert "no connection" in results[0].error
    assert totals.booked == 0


def test_retry_after_holds_every_request_back(server, ask):
    server.faults = [(429, {"retry-after-ms": "400"})]
    began = time.monotonic()
    ask(questions(4), concurrency=1)
    assert time.monotonic() - began >= 0.4
    server.faults = [(429, {"retry-after": "86400"})]
    said, totals = ask(questions(5), concurrency=1)
    assert "asks to come back in 86,400 s" in said
    assert totals.answers == 4


def test_no_more_requests_than_allowed_are_out_at_once(server, ask):
    server.delay = 0.02
    ask(questions(12), concurrency=3)
    assert server.most_at_once == 3


def test_the_cap_holds_and_after_raising_it_the_rest_is_asked(server, ask):
    worst = worst_cost(questions(1)[0].messages, 100, PRICE)
    cap = worst + 4 * 15_000  # room for the worst case of a fifth request, but not of a sixth
    said, totals = ask(questions(9), max_cost=cap / 1e9, concurrency=4)
    assert "max_cost" in said
    assert "raise it and run the same command again" in said
    assert totals.answers == 5
    assert totals.booked <= cap
    results, totals = ask(questions(9))
    assert (len(server.seen), totals.answers, len(results)) == (9, 9, 9)


@pytest.mark.timeout(30)
def test_waiting_for_room_under_the_cap_uses_up_no_pace(server, ask):
    """Room for one request at a time; six of the eight that the minute allows. Four that wait and look again would use them up."""
    cap = worst_cost(questions(1)[0].messages, 100, PRICE) + 5 * 15_000
    server.delay = 0.15
    results, totals = ask(questions(6), max_cost=cap / 1e9, concurrency=4, requests_per_minute=8)
    assert (len(results), totals.answers, server.most_at_once) == (6, 6, 1)


def test_a_cap_below_the_first_request_sends_nothing(server, ask):
    said, totals = ask(questions(3), max_cost=0.0)
    assert "max_cost = 0" in said
    assert (server.seen, totals.booked) == ([], 0)


def test_a_server_that_charges_more_than_the_request_allowed_is_stopped_at_once(server, ask):
    server.faults = ["dear"]
    said, totals = ask(questions(5), concurrency=1)
    assert "has cost 20.00 USD" in said
    assert len(server.seen) == totals.answers == 1


def test_the_estimate_bounds_the_bill_and_knows_what_is_already_answered(server, spec_of, tmp_path):
    with RemoteTeacher(spec_of(server), None, tmp_path / "ledger.sqlite", "purse", {}) as teacher:
        before = teacher.estimate(questions(25), SAMPLING)
        assert (before.requests, before.answered, before.measured) == (25, 0, False)
        teacher.answers(questions(22), SAMPLING, lambda place, result: None)
        assert teacher.totals().booked <= before.worst
        after = teacher.estimate(questions(25), SAMPLING)
        assert (after.answered, after.measured) == (22, True)
        assert after.worst == sum(worst_cost(question.messages, 100, PRICE) for question in questions(25)[22:])
        assert str(after).startswith("25 requests (22 of them answered before, at no cost): at most ")
        assert "costs nothing" in str(teacher.estimate(questions(5), SAMPLING))


def test_the_key_is_written_nowhere_even_if_the_server_repeats_it(server, ask, tmp_path):
    server.answer = lambda messages: (f"your key is {KEY}", "")
    server.faults = [400, None]
    results, _ = ask(questions(2), concurrency=1)
    assert "[key]" in results[0].error
    assert results[1].text == "your key is [key]"
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_the_ledger_is_its_users_alone(server, ask, tmp_path):
    ask(questions(1))
    assert (tmp_path / "ledger.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("text", ["half a character \ud800 here", "", "\x00\x1b[31m\u2028"])
def test_whatever_characters_come_can_be_kept(server, ask, dialect, text):
    server.answer = lambda messages: (text, "")
    [answer], _ = ask([Question(({"role": "user", "content": "\ud83d alone"},))], dialect=dialect)
    answer.text.encode()
    [again], _ = ask([Question(({"role": "user", "content": "\ud83d alone"},))], dialect=dialect)
    assert again == answer


def test_a_stop_lets_what_is_in_flight_come_home_and_sends_nothing_more(server, ask, spec_of, tmp_path):
    server.delay = 0.3
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    with interrupt.between_steps():
        timer.start()
        with (
            RemoteTeacher(spec_of(server, concurrency=2), None, tmp_path / "ledger.sqlite", "purse", {}) as teacher,
            pytest.raises(KeyboardInterrupt),
        ):
            teacher.answers(questions(10), SAMPLING, lambda place, result: None)
    assert len(server.seen) == 2
    server.delay = 0.0
    _, totals = ask(questions(10), key=None)
    assert (len(server.seen), totals.answers, totals.doubtful) == (10, 10, 0)


def test_a_second_stop_leaves_at_once_and_what_was_in_flight_is_doubtful(server, ask, spec_of, tmp_path):
    server.faults = ["hang"]
    timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in (0.2, 0.4)]
    began = time.monotonic()
    with interrupt.between_steps():
        for timer in timers:
            timer.start()
        with (
            RemoteTeacher(spec_of(server, concurrency=1), None, tmp_path / "ledger.sqlite", "purse", {}) as teacher,
            pytest.raises(KeyboardInterrupt),
        ):
            teacher.answers(questions(2), SAMPLING, lambda place, result: None)
    assert time.monotonic() - began < 4
    results, totals = ask(questions(2), key=None)
    assert all(isinstance(result, Answer) for result in results)
    assert totals.doubtful == worst_cost(questions(1)[0].messages, 100, PRICE)


def test_a_ledger_that_is_no_database_is_told(server, spec_of, tmp_path):
    (tmp_path / "ledger.sqlite").write_text("no database, but a text of some length " * 50)
    with pytest.raises(UserError, match="name another file with `ledger`"):
        RemoteTeacher(spec_of(server), None, tmp_path / "ledger.sqlite", "purse", {})
