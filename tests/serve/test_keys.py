"""Keys as they are kept and asked for: hashes in a file of one's own, limits that hold, money that is counted once, and no leak."""

import asyncio
import json
import multiprocessing
import os
import socket
import stat
import threading

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import random_model, serving
from test_gate import routes

from spoutnik.errors import UserError
from spoutnik.recipe.tables import Price
from spoutnik.serve.allowance import Allowance, anthropic_headers, openai_headers
from spoutnik.serve.auth import Principal
from spoutnik.serve.backend import Cost, Usage
from spoutnik.serve.errors import OverloadedError, QuotaError, RateLimitError, UnauthorisedError
from spoutnik.serve.keys.bucket import Bucket
from spoutnik.serve.keys.key import digest_of, matches, new_secret
from spoutnik.serve.keys.keyring import Keyring
from spoutnik.serve.keys.store import KeyStore, Limits, Spending
from spoutnik.serve.settings import Settings
from spoutnik.teacher.money import BILLIONTHS

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2}


@pytest.fixture
def store(tmp_path):
    store = KeyStore(tmp_path / "data" / "keys.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server that counts money, and the file of its keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.sqlite"
    settings = Settings(price=Price(cpu_core_hour=10_000.0))
    with serving(*random_model(), authenticator=Keyring(KeyStore(path), "EUR"), settings=settings) as running:
        yield running, path


def make(path, **limits):
    """A key in the file of a server that runs."""
    store = KeyStore(path)
    _, secret = store.create(limits=Limits(**limits))
    store.close()
    return secret


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


def ask(running, secret, **changes):
    return httpx2.post(f"{running.url}/v1/chat/completions", json=ASK | changes, headers=bearer(secret), timeout=60)


# The file


def test_a_secret_is_kept_nowhere_but_as_a_hash(store):
    key, secret = store.create("alice")
    assert secret.startswith(f"sk-spk-{key.id}-")
    assert len(secret.split("-", 3)[3]) == 43  # 256 bits
    for file in store.path.parent.iterdir():
        content = file.read_bytes()
        assert secret.encode() not in content
        assert secret.split("-", 3)[3].encode() not in content
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_others_may_read_is_refused(store):
    os.chmod(store.path, 0o640)
    with pytest.raises(UserError, match="chmod 600"):
        KeyStore(store.path)


def test_a_link_to_another_file_is_not_followed(store, tmp_path):
    (tmp_path / "link").symlink_to(store.path)
    with pytest.raises(UserError, match="cannot be used"):
        KeyStore(tmp_path / "link")


def test_what_is_no_file_of_keys_is_one_sentence(tmp_path):
    other = tmp_path / "keys.sqlite"
    other.write_bytes(b"not a database, though it is long enough to be looked at" * 40)
    other.chmod(0o600)
    with pytest.raises(UserError, match="cannot be used"):
        KeyStore(other)


def test_no_two_keys_that_hold_have_one_name(store):
    key, _ = store.create("alice")
    with pytest.raises(UserError, match="already"):
        store.create("alice")
    store.revoke("alice")
    again, _ = store.create("alice")
    assert {key.id, again.id} == {key.id for key in store.all()}
    with pytest.raises(UserError, match="no key"):
        store.revoke(key.id)


def _create_and_spend(path, key_id, count):
    store = KeyStore(path)
    for _ in range(count):
        store.create()
        store.spend({key_id: Spending(3, 1, 2, 1)}, 1.0)


def test_several_processes_make_and_charge_keys_at_once(store):
    key, _ = store.create()
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_create_and_spend, args=(store.path, key.id, 10)) for _ in range(3)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    kept = {key.id: key for key in store.all()}
    assert len(kept) == 31
    assert (kept[key.id].spent, kept[key.id].requests, kept[key.id].prompt_tokens) == (90, 30, 60)


def test_comparing_takes_the_same_way_for_keys_that_do_not_exist(monkeypatch, store):
    """Whatever is presented, one hash is made and one comparison in constant time."""
    key, secret = store.create()
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((len(one), len(other))) or one == other)
    assert matches(key, secret)
    assert not matches(key, secret[:-1])
    assert not matches(None, secret)
    assert not matches(None, "nobody")
    assert compared == [(32, 32)] * 4


@given(st.text(max_size=80))
def test_nothing_but_the_secret_is_the_key(presented):
    _, secret = new_secret()
    assert (digest_of(presented) == digest_of(secret)) == (presented == secret)


# The buckets


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 400)), max_size=60))
def test_a_bucket_lets_through_what_it_holds_and_what_time_refills(limit, tries):
    bucket, now, taken, start = Bucket(limit, 0.0), 0.0, 0, 0.0
    for pause, amount in tries:
        now += pause
        amount = min(amount, limit)
        wait = bucket.wait(amount, now)
        if wait == 0:
            bucket.take(amount, now)
            taken += amount
            assert taken <= limit + (now - start) * limit / 60 + 1e-6
        else:
            assert bucket.wait(amount, now + wait + 1e-6) == 0, "who waits as long as he is told is let through"


def test_an_answer_that_was_longer_than_allowed_is_owed():
    bucket = Bucket(60, 0.0)
    bucket.take(120, 0.0)
    assert bucket.allowance(0.0) == Allowance(60, 0, 120.0)
    assert bucket.wait(1, 0.0) == 61.0


def test_headers_tell_how_rates_stand():
    told = openai_headers({"requests": Allowance(60, 59, 1.0), "tokens": Allowance(1000, 0, 90.5)})
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"], told["x-ratelimit-reset-requests"]) == (
        "60",
        "59",
        "1s",
    )
    assert (told["x-ratelimit-remaining-tokens"], told["x-ratelimit-reset-tokens"]) == ("0", "1m30.5s")
    anthropic = anthropic_headers({"tokens": Allowance(1000, 10, 90.5)})
    assert anthropic["anthropic-ratelimit-tokens-limit"] == "1000"
    assert anthropic["anthropic-ratelimit-tokens-reset"].endswith("Z")


# The ring, with time in hand


class Ring:
    """A keyring whose clocks stand still until they are moved."""

    def __init__(self, store, currency="EUR"):
        self.now = 1_000_000.0
        self.keys = Keyring(store, currency, lambda: self.now, lambda: self.now)

    def enter(self, secret):
        principal = asyncio.run(self.keys.authenticate(bearer(secret)))
        self.keys.enter(principal)
        return principal

    def admit(self, principal, prompt_tokens=1):
        asyncio.run(self.keys.admit(principal, prompt_tokens, 10))


@pytest.fixture
def ring(store):
    return Ring(store)


def test_an_expired_key_opens_nothing(store, ring):
    _, secret = store.create(limits=Limits(expires=ring.now + 10))
    ring.enter(secret)
    ring.now += 10
    with pytest.raises(UnauthorisedError, match="expired"):
        ring.enter(secret)


def test_requests_a_minute_and_at_a_time_are_bounded(store, ring):
    _, secret = store.create(limits=Limits(requests_per_minute=3, concurrent=2))
    first = ring.enter(secret)
    ring.enter(secret)
    with pytest.raises(RateLimitError, match="under way"):
        ring.enter(secret)
    ring.keys.leave(first)
    ring.enter(secret)
    ring.keys.leave(first)
    with pytest.raises(RateLimitError, match="3 requests a minute") as refused:
        ring.enter(secret)
    assert refused.value.headers["retry-after"] == "20"
    ring.now += 20
    ring.enter(secret)


def test_tokens_a_minute_are_bounded_by_what_answers_turned_out_to_be(store, ring):
    _, secret = store.create(limits=Limits(tokens_per_minute=100))
    principal = ring.enter(secret)
    ring.admit(principal, 60)

    async def charge():
        ring.keys.charge(principal, Usage(prompt_tokens=60, completion_tokens=100))

    asyncio.run(charge())
    with pytest.raises(RateLimitError, match="100 tokens a minute") as refused:
        ring.admit(principal, 10)
    assert refused.value.headers["retry-after"] == "42"
    ring.now += 42
    ring.admit(principal, 10)
    ring.now += 60
    ring.admit(principal, 5000)  # what never fits goes when nothing else did


def test_a_budget_in_money_that_the_server_does_not_count_is_refused(store):
    _, secret = store.create(limits=Limits(budget=1, currency="USD"))
    for currency in ("EUR", None):
        ring = Ring(store, currency)
        with pytest.raises(QuotaError, match="in USD, but this server counts"):
            ring.admit(ring.enter(secret))


def test_charges_that_cannot_be_written_are_kept_and_still_count(store, ring, tmp_path):
    _, secret = store.create(limits=Limits(budget=BILLIONTHS, currency="EUR"))
    other = KeyStore(store.path)
    hasty = KeyStore(store.path, wait_s=0.0)

    async def run():
        keys = Keyring(hasty, "EUR", lambda: ring.now, lambda: ring.now)
        principal = await keys.authenticate(bearer(secret))
        with other._transaction():
            keys.charge(principal, Usage(cost=Cost(money=0.75)))
            keys._write()
            assert (await keys.balance(principal)).total == 0.25
        keys.charge(principal, Usage(cost=Cost(money=0.25)))
        with pytest.raises(QuotaError, match=r"Insufficient balance: this key's budget of 1.00 EUR"):
            await keys.admit(principal, 1, 1)
        await keys.close()

    asyncio.run(run())
    (kept,) = store.all()
    assert (kept.spent, kept.requests) == (BILLIONTHS, 2)
    other.close()


def test_a_file_that_cannot_be_read_lets_nobody_in(store, ring):
    _, secret = store.create()
    ring.enter(secret)
    store.close()
    with pytest.raises(OverloadedError):
        ring.enter(secret)
    store.__init__(store.path)


def test_spending_of_other_processes_counts(store, ring):
    key, secret = store.create(limits=Limits(budget=10, currency="EUR"))
    principal = ring.enter(secret)
    ring.admit(principal)
    other = KeyStore(store.path)
    other.spend({key.id: Spending(10)}, 1.0)
    other.close()
    with pytest.raises(QuotaError):
        ring.admit(ring.enter(secret))


# The server


def test_every_route_but_two_asks_the_real_file_for_the_key(keyed):
    running, path = keyed
    good, ended = make(path), make(path, expires=1.0)
    wrong = [good[:-1], good + "x", good.upper(), good.split("-", 3)[3], ended, "sk-spk-"]
    refused = [{}, {"authorization": good}, {"authorization": f"Basic {good}"}]
    refused += [headers for key in wrong for headers in (bearer(key), {"x-api-key": key})]
    with httpx2.Client() as client:
        for method, route in set(routes(running.app)):
            for headers in refused:
                status = client.request(method, running.url + route, headers=headers).status_code
                assert status == (200 if route in ("/health", "/ready") else 401), (method, route, headers)
    for headers in (bearer(good), {"x-api-key": good}, {"authorization": f"bearer {good}"}):
        assert httpx2.get(f"{running.url}/v1/models", headers=headers).status_code == 200


def test_a_running_server_takes_up_new_keys_and_drops_revoked_ones_at_once(keyed):
    running, path = keyed
    secret = make(path)
    assert ask(running, secret).status_code == 200
    store = KeyStore(path)
    store.revoke(secret.split("-")[2])
    store.close()
    refused = ask(running, secret)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "revoked" in refused.json()["error"]["message"]


def test_rates_are_told_in_headers_and_refusals_say_when_to_come_back(keyed):
    running, path = keyed
    secret = make(path, requests_per_minute=2, tokens_per_minute=100_000)
    first, _, third = (ask(running, secret) for _ in range(3))
    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert (third.status_code, third.headers["retry-after"], third.headers["x-ratelimit-remaining-requests"]) == (429, "30", "0")
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=secret, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        client.models.list()


def test_requests_at_a_time_are_counted_until_their_answers_end(keyed):
    running, path = keyed
    secret = make(path, concurrent=1)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as begun:
        begun.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nx-api-key: {secret}\r\ncontent-length: 9\r\n\r\n".encode())
        for _ in range(500):
            if ask(running, secret).status_code == 429:
                break
            threading.Event().wait(0.02)
        else:
            pytest.fail("a request whose body is on its way does not count")
    for _ in range(500):
        if ask(running, secret).status_code == 200:
            break
        threading.Event().wait(0.02)
    else:
        pytest.fail("a client that left still counts")


def test_a_spent_budget_is_402_as_deepseeks_and_survives_the_server(keyed):
    running, path = keyed
    secret = make(path, budget=BILLIONTHS // 1000, currency="EUR")
    balance = httpx2.get(f"{running.url}/user/balance", headers=bearer(secret)).json()
    assert balance == {"is_available": True, "balance_infos": [
        {"currency": "EUR", "total_balance": "0.00", "granted_balance": "0.00", "topped_up_balance": "0.00"}]}  # fmt: skip
    answers = [ask(running, secret, max_tokens=100) for _ in range(2)]
    assert answers[0].status_code == 200
    money = answers[0].json()["usage"]["cost"]["money"]
    assert money > 0.001, "else this tests nothing"
    assert (answers[1].status_code, answers[1].json()["error"]["type"]) == (402, "insufficient_quota")
    assert answers[1].headers["x-should-retry"] == "false"
    assert httpx2.get(f"{running.url}/user/balance", headers=bearer(secret)).json()["is_available"] is False
    store = KeyStore(path)
    for _ in range(500):
        (kept,) = [key for key in store.all() if key.id in secret]
        if kept.spent:
            break
        threading.Event().wait(0.02)
    assert kept.spent / BILLIONTHS == pytest.approx(money, rel=1e-6)
    store.close()


def test_a_request_that_was_refused_leaves_no_trace_on_the_account(keyed):
    running, path = keyed
    secret = make(path, budget=BILLIONTHS, currency="EUR")
    assert ask(running, secret, n=1000).status_code == 400
    assert ask(running, secret, messages=[{"role": "user", "content": "the cat " * 2000}]).status_code == 400
    (kept,) = [key for key in running.service.authenticator._keys.values() if key.id in secret]
    assert (kept.spent, running.service.authenticator._use(kept.id).pending) == (0, Spending())


def test_keys_are_made_listed_and_revoked_from_the_command_line(tmp_path, capsys):
    from typer.testing import CliRunner

    from spoutnik.cli.main import app

    def key(*arguments):
        return CliRunner().invoke(app, ["key", *arguments, "--keys", str(tmp_path / "keys.sqlite")])

    assert "There are no keys" in key("ls").stdout
    made = key("create", "--name", "alice", "--budget", "2.5", "--requests-per-minute", "60", "--expires", "30d")
    secret = made.stdout.strip()
    (listed,) = json.loads(key("ls", "--json").stdout)
    assert (listed["name"], listed["state"], listed["budget"], listed["requests_per_minute"]) == ("alice", "valid", 2.5, 60)
    assert "digest" not in listed
    assert secret not in key("ls").stdout + made.stderr
    assert listed["id"] in key("ls").stdout
    assert "revoked" in key("revoke", "alice").stdout
    assert json.loads(key("ls", "--json").stdout)[0]["state"] == "revoked"
    assert isinstance(key("create", "--expires", "1999-01-01").exception, UserError)
    assert isinstance(key("create", "--expires", "soon").exception, UserError)
    assert Principal(listed["id"]).id in secret


def test_what_one_caller_asked_is_not_found_by_another(keyed):
    running, path = keyed
    first, second = make(path), make(path)
    words = [{"role": "user", "content": "the cat sat on the mat and thought " * 4}]

    def hits(secret):
        return ask(running, secret, messages=words).json()["usage"]["prompt_cache_hit_tokens"]

    assert [hits(first), hits(second)] == [0, 0]
    assert min(hits(first), hits(second)) >= 32
