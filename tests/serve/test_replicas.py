"""Engines that are lost and found again: no accepted request is lost, and answers are those of an undisturbed engine.

The replicas here are real ones in this process; what is killed is left where it stands, as a process would be.
"""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import random_model

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.recipe.tables import Price
from spoutnik.serve.backend import Shape
from spoutnik.serve.errors import InvalidRequestError, OverloadedError, ServerError
from spoutnik.serve.opening import Opening
from spoutnik.serve.replica import LostError, Replica
from spoutnik.serve.replicas import MOST_LOSSES, Replicas

WORDS = "the cat sat on the mat and"
SHAPE = Shape('start: "the " ("cat" | "mat") " sat"{1,4} " and" "!"?', thinking=False)


class Near:
    """A link to a replica in this process. `killing` may end it before a call or after it; then nobody is told what came of the call."""

    def __init__(self, opening):
        self.opening, self.calls, self.killing, self.lives = opening, 0, set(), 0
        self._begin()

    def _begin(self):
        self._replica, self._ended = Replica(self.opening, Price()), asyncio.Event()
        self.lives += 1

    async def _call(self, name, *arguments):
        replica, ended = self._replica, self._ended
        self.calls += 1
        if self.calls in self.killing:
            await self.kill()
        if ended.is_set():
            raise LostError
        work, end = asyncio.ensure_future(getattr(replica, name)(*arguments)), asyncio.ensure_future(ended.wait())
        await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        if ended.is_set():
            work.cancel()
            raise LostError
        return work.result()

    async def open(self):
        return await self._call("open")

    async def submit(self, *arguments):
        return await self._call("submit", *arguments)

    async def drop(self, *arguments):
        return await self._call("drop", *arguments)

    async def letter(self, *arguments):
        return await self._call("letter", *arguments)

    async def score(self, *arguments):
        return await self._call("score", *arguments)

    async def embed(self, *arguments):
        return await self._call("embed", *arguments)

    async def kill(self):
        self._ended.set()
        asyncio.ensure_future(self._replica.close())  # noqa: RUF006 (its thread would go on for ever)
        self._begin()

    async def close(self):
        await self._replica.close()


@pytest.fixture(scope="module")
def opening(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    model, tokenizer = random_model()
    save_checkpoint(model, tokenizer, path)
    return Opening(str(path), max_batch=4, max_queue=4)


@pytest.fixture(scope="module")
def tokenizer():
    return random_model()[1]


def running(opening, tokenizer, count, work):
    """What `work(backend, links)` gives."""

    async def run():
        links = [Near(opening) for _ in range(count)]
        backend = Replicas(links, await links[0].open(), tokenizer)
        await backend.start()
        try:
            return await asyncio.wait_for(work(backend, links), 60)
        finally:
            await backend.close()

    return asyncio.run(run())


async def answers(generation):
    """Completions, and the tokens and texts of all events, of each request; what was spent on it is never forgotten."""
    found, tokens, texts, spent = {}, {}, {}, {}
    async for news in generation:
        for one in news:
            assert one.cost.cpu_seconds >= spent.get(one.index, 0.0)
            spent[one.index] = one.cost.cpu_seconds
            tokens.setdefault(one.index, []).extend(one.event.tokens)
            texts[one.index] = texts.get(one.index, "") + one.event.text
            if one.event.completion is not None:
                assert one.index not in found
                found[one.index] = one.event.completion
    for index, completion in found.items():
        assert (tokens[index], texts[index]) == (completion.token_ids, completion.text)
    return [replace(found[index], cached_tokens=0) for index in sorted(found)]


def cases(tokenizer):
    """Jobs as (requests, shape)."""
    ids = tokenizer.encode(WORDS)
    thinking = {"thinking_budget": 4, "thinking_end": tuple(tokenizer.encode("</think>\n"))}
    return [
        ([Request(ids, 20, seed=1), Request(ids, 14, 0.7, seed=2, top_logprobs=3)], None),
        ([Request([*ids, 40], 24, seed=3, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2)], None),
        ([Request(ids, 40, seed=index) for index in (4, 5)], SHAPE),
        ([Request(tokenizer.encode("Assistant:<think>\n"), 24, seed=6, **thinking)], None),
        ([Request(ids, 40, seed=7, stop=("at", "ou"))], None),
    ]


@pytest.fixture(scope="module")
def undisturbed(opening, tokenizer):
    async def one_by_one(backend, links):
        return [await answers(await backend.generate(*case)) for case in cases(tokenizer)]

    return running(opening, tokenizer, 1, one_by_one)


@settings(max_examples=12)
@given(kills=st.lists(st.tuples(st.integers(0, 1), st.integers(2, 40)), max_size=MOST_LOSSES - 1, unique=True))
def test_wherever_replicas_are_lost_the_answers_are_the_same(opening, tokenizer, undisturbed, kills):
    async def together(backend, links):
        for link, call in kills:
            links[link].killing.add(links[link].calls + call)
        jobs = [await patiently(backend, case) for case in cases(tokenizer)]
        return await asyncio.gather(*map(answers, jobs))

    assert running(opening, tokenizer, 2, together) == undisturbed


async def patiently(backend, case):
    """Asks until it is accepted, as clients do."""
    while True:
        try:
            return await backend.generate(*case)
        except OverloadedError:
            await asyncio.sleep(0.02)


def test_both_engines_work_and_the_only_one_that_is_left_takes_over(opening, tokenizer, undisturbed):
    async def work(backend, links):
        jobs = [await backend.generate(*case) for case in cases(tokenizer)]
        assert all(member.jobs for member in backend._members)
        streams = [asyncio.ensure_future(answers(job)) for job in jobs]
        while not any(answer.token_ids for job in jobs for answer in job.answers):
            await asyncio.sleep(0.001)
        await links[0].kill()
        found = await asyncio.gather(*streams)
        assert backend.load().resumed > 0
        while backend.load().replicas < 2:
            await asyncio.sleep(0.01)
        assert (backend.load().losses, links[0].lives) == (1, 2)
        return found

    assert running(opening, tokenizer, 2, work) == undisturbed


def test_a_request_that_every_engine_dies_of_is_given_up(opening, tokenizer):
    async def work(backend, links):
        links[0].submit = dying(links[0])
        with pytest.raises(ServerError, match="3 engines were lost"):
            await answers(await patiently(backend, ([Request(tokenizer.encode(WORDS), 300)], None)))
        return links[0].lives

    def dying(link):
        async def submit(*arguments):
            outcome = await link._call("submit", *arguments)
            await link.kill()
            return outcome

        return submit

    assert running(opening, tokenizer, 1, work) == 1 + MOST_LOSSES


def test_who_leaves_frees_the_engine_and_who_waits_is_refused_when_all_lines_are_full(opening, tokenizer):
    long = Request(tokenizer.encode(WORDS), 400, logit_bias=dict.fromkeys(tokenizer.eos_token_ids, -100.0))

    async def work(backend, links):
        jobs = [await backend.generate([replace(long, seed=seed)] * 4) for seed in range(4)]  # 2 engines: 4 rows and 4 places each
        with pytest.raises(OverloadedError):
            await backend.generate([long])
        for job in jobs:
            await job.aclose()
            await job.aclose()
        while (backend.load().running, backend.load().waiting, backend.load().pages.used) != (0, 0, 0):
            await asyncio.sleep(0.01)

    running(opening, tokenizer, 2, work)


def test_scores_and_embeddings_are_asked_again_where_an_engine_was_lost(opening, tokenizer):
    texts = [tokenizer.encode(WORDS), tokenizer.encode("the mat")]

    async def work(backend, links):
        given = [Given(text, 1) for text in texts]
        expected = (await backend.score(given, 2))[0], (await backend.embed(texts))[0]
        for link in links:
            link.killing.add(link.calls + 1)
        assert ((await backend.score(given, 2))[0], (await backend.embed(texts))[0]) == expected
        with pytest.raises(InvalidRequestError, match="context holds"):
            await backend.score([Given([5] * 600, 1)], 0)

    running(opening, tokenizer, 2, work)


def test_what_an_engine_refuses_is_refused(opening, tokenizer):
    async def work(backend, links):
        with pytest.raises(InvalidRequestError, match="shape cannot be kept to"):
            await backend.generate([Request([5], 5)], Shape("start: nonsense(", thinking=False))
        with pytest.raises(InvalidRequestError, match="no adapter 'poems'"):
            await backend.generate([Request([5], 5, adapter="poems")])
        assert await answers(await backend.generate([Request([5], 5)]))

    running(opening, tokenizer, 2, work)


def test_the_end_is_told_to_whoever_still_waits(opening, tokenizer):
    async def work(backend, links):
        job = await backend.generate([Request(tokenizer.encode(WORDS), 400)])
        await backend.close()
        with pytest.raises(OverloadedError, match="stops"):
            await answers(job)
        with pytest.raises(OverloadedError, match="stops"):
            await backend.generate([Request([5], 5)])
        with pytest.raises(OverloadedError, match="stops"):
            await backend.embed([[5]])

    running(opening, tokenizer, 1, work)
