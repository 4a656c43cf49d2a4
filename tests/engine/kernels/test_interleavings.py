"""On the real kernels: whatever comes, waits, is cancelled, fails or is restarted, each request gets the tokens that it gets alone."""

import shutil
import tempfile
from collections import Counter
from functools import cache
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tiny_models import foresee, randomise, tiny_model

from spoutnik.engine import prompts
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels import runner as kernels
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.scheduler import QueueFullError
from spoutnik.engine.scoring import Given
from spoutnik.engine.store import Store
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=280)
LENGTH, PAGES = 5 * PAGE, 8
STEM = [5 + place * 7 % 200 for place in range(100)]
POPULAR = {"70": STEM[:70], "65": STEM[:65], "64": STEM[:64], "other": STEM[:40] + [9] * 30, "20": STEM[:20], "8": [8] * 33, "100": STEM}


@pytest.fixture(autouse=True, scope="module")
def _free_engines():
    yield
    alone.cache_clear()


@cache
def model(family):
    made = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=LENGTH)
    randomise(made, std=0.12)
    if made.config.num_nextn_predict_layers:
        foresee(made, 0.02)
    return made


class AtRandom:
    """Guesses in some steps."""

    def __init__(self, seed):
        self.random = Random(seed)

    def guesses(self, sequences):
        return self.random.random() < 0.8

    def note(self, *what):
        """Whatever it costs."""


@cache
def alone(family, precision):
    return Engine(model(family), TOKENIZER, 1, LENGTH, KernelRunner(model(family), precision, 1, LENGTH, speculate=False))


@cache
def expected(family, precision, prompt, new, seed):
    engine = alone(family, precision)
    engine.runner.blocks.forget()
    (completion,) = engine.generate([Request(prompt, new, seed=seed)])
    assert completion.cached_tokens == 0
    return completion


class EngineMachine(RuleBasedStateMachine):
    """A small engine with few pages, few rows a step and a store, used as a server would."""

    family, precision = "llama-3", "float32"

    @initialize(rows=st.sampled_from([8, 40, 512]), read=st.sampled_from([1, 1 << 30]))
    def start(self, rows, read):
        self.kept = kernels.STEP_ROWS, prompts.READ_BYTES
        kernels.STEP_ROWS, prompts.READ_BYTES = rows, read
        self.folder = tempfile.mkdtemp()
        self.requests, self.shown = {}, []
        self.open()

    def open(self):
        self.store = Store(self.folder)
        page_bytes = len(KernelRunner(model(self.family), self.precision, 1, LENGTH)._engine.page(0))
        runner = KernelRunner(model(self.family), self.precision, 3, LENGTH, PAGES * page_bytes, self.store)
        if runner.drafting is not None:
            runner.drafting.chooser = AtRandom(len(self.shown))
        self.engine = Engine(model(self.family), TOKENIZER, 3, LENGTH, runner, max_queue=5)

    @rule(name=st.sampled_from(list(POPULAR)), owners=st.text("aab", min_size=1, max_size=3), new=st.sampled_from([1, 3, 40]))
    def add(self, name, owners, new):
        for seed, owner in enumerate(owners):
            request = Request(POPULAR[name], new, seed=seed, owner=owner)
            try:
                self.requests[self.engine.add(request)] = request
                self.shown.append((owner, tuple(POPULAR[name])))
            except QueueFullError:
                return

    @rule(which=st.integers(0, 99))
    def cancel(self, which):
        if not self.requests:  # what has ended depends on the disk, so it must not steer what is drawn
            return
        assert self.engine.cancel(sorted(self.requests)[which % len(self.requests)])
        self.step()

    @rule(name=st.sampled_from(list(POPULAR)), owner=st.sampled_from("ab"))
    def score(self, name, owner):
        prompt = POPULAR[name]
        known = expected(self.family, self.precision, tuple(prompt), 3, 0)
        try:
            assert self.engine.score([Given([*prompt, *known.token_ids], len(prompt), owner)]) == [known.logprobs]
        except UserError:
            assert self.engine.busy, "room only lacks where others have it"
        self.shown.append((owner, (*prompt, *known.token_ids)))

    @rule(times=st.integers(1, 5))
    def steps(self, times):
        for _ in range(times):
            self.step()

    @rule(flushed=st.booleans())
    def restart(self, flushed):
        """The process ends, with all that was under way; what was on its way to disk may be lost."""
        if not flushed:
            self.engine.runner.blocks.forget()
        self.store.close()
        self.requests.clear()
        self.open()

    @rule()
    def fail(self):
        self.engine.reset()
        self.requests.clear()
        assert self.engine.runner.blocks.available == PAGES

    def step(self):
        for event in self.engine.step():
            if event.completion is not None:
                self.check(self.requests.pop(event.request_id), event.completion)

    def check(self, request, completion):
        alike = expected(self.family, self.precision, tuple(request.prompt_ids), request.max_new_tokens, request.seed)
        count = len(completion.token_ids)
        assert completion.finish_reason in (alike.finish_reason, "cancelled")
        assert completion.token_ids == alike.token_ids[:count]
        assert completion.logprobs == alike.logprobs[:count]
        assert completion.finish_reason == "cancelled" or count == len(alike.token_ids)
        mine = (request.owner, tuple(request.prompt_ids))
        known = [tokens for owner, tokens in self.shown if owner == mine[0]]
        known.remove(mine[1])
        assert completion.cached_tokens <= max((common(tokens, mine[1]) for tokens in known), default=0)
        self.shown.append((mine[0], mine[1] + tuple(completion.token_ids)))

    @invariant()
    def pages_are_accounted_for(self):
        if hasattr(self, "engine"):
            runner = self.engine.runner
            held = Counter(page for table in runner._prompts.tables.values() for page in table.pages)
            assert runner.blocks.available + len(held) == PAGES
            assert len(runner._prompts.tables) == len(self.engine._scheduler.running)

    def teardown(self):
        if hasattr(self, "engine"):
            try:
                while self.engine.busy:
                    self.step()
                assert not self.requests
                assert self.engine.runner.blocks.available == PAGES
            finally:
                self.store.close()
                shutil.rmtree(self.folder)
                kernels.STEP_ROWS, prompts.READ_BYTES = self.kept


def common(one, other):
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize(("family", "precision"), [("llama-3", "float32"), ("deepseek-v3", "int8"), ("mistral", "bfloat16")])
def test_any_interleaving(family, precision):
    class Machine(EngineMachine):
        pass

    Machine.family, Machine.precision = family, precision
    case = Machine.TestCase
    case.settings = settings(deadline=None, stateful_step_count=25, max_examples=40)
    case("runTest").runTest()
