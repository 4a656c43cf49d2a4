"""Requests go where their prompt is known, unless that engine is far busier."""

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.serve.routing import PAGE, REQUEST_TOKENS, Router

PAGES = st.lists(st.integers(0, 2), max_size=6)  # a page of equal tokens
LOADS = st.dictionaries(st.integers(0, 4), st.integers(0, 40), min_size=1)
SENT = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "ann"]), PAGES), max_size=12)


def tokens(pages, more=0):
    return [page for page in pages for _ in range(PAGE)] + [7] * more


def common(one, other):
    """Pages at the beginning of both."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def sent_to(router, sent, most_pages=1000):
    for engine, owner, pages in sent:
        router.remember(engine, owner, tokens(pages, more=5), most_pages)


@given(SENT, PAGES, LOADS, st.integers(0, PAGE - 1))
def test_the_best_engine_has_the_least_to_do(sent, pages, loads, more):
    router = Router()
    sent_to(router, sent)

    def known(engine):
        return PAGE * max((common(other, pages) for to, owner, other in sent if (to, owner) == (engine, "ann")), default=0)

    order = router.order("ann", tokens(pages, more), loads)
    assert sorted(order) == sorted(loads), "all that are ready, and no other"
    best = order[0]
    for other in loads:
        assert router.known(other, "ann", tokens(pages, more)) == known(other)
        assert known(best) - known(other) >= REQUEST_TOKENS * (loads[best] - loads[other])
        if loads[other] == loads[best]:
            assert known(best) >= known(other)


@given(SENT, PAGES)
def test_an_engine_that_begins_anew_knows_nothing_and_others_are_not_touched(sent, pages):
    router = Router()
    sent_to(router, sent)
    before = [router.known(engine, "", tokens(pages)) for engine in range(5)]
    router.forget(2)
    assert router.known(2, "", tokens(pages)) == 0
    assert [router.known(engine, "", tokens(pages)) for engine in (0, 1, 3, 4)] == [before[engine] for engine in (0, 1, 3, 4)]


@given(SENT, st.integers(0, 8), PAGES)
def test_no_more_is_remembered_than_the_engine_holds_and_the_latest_prompt_from_its_beginning(sent, most_pages, pages):
    router = Router()
    sent_to(router, sent, most_pages)
    router.remember(0, "", tokens(pages), most_pages)
    assert router.known(0, "", tokens(pages)) == PAGE * min(most_pages, len(pages))
    assert len(router._held.get(0, ())) <= most_pages


def test_a_known_prompt_draws_requests_until_its_engine_is_far_busier():
    router = Router()
    prompt = tokens([1] * 20)
    router.remember(1, "", prompt, 1000)
    ahead = len(prompt) // REQUEST_TOKENS
    assert router.order("", prompt, {0: 0, 1: ahead - 1})[0] == 1
    assert router.order("", prompt, {0: 0, 1: ahead + 1})[0] == 0
    assert router.order("somebody else", prompt, {0: 0, 1: 1})[0] == 0
