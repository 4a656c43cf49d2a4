"""A teacher's distributions in a student's ids."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.teacher.translated import LEAST, translate
from spoutnik.text.alignment import SharedTokens


def logprobs(n, vocab, seed=0):
    return (3 * torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def test_a_permutation_is_undone():
    said = logprobs(2, 4)
    top = translate(said, SharedTokens([0, 1, 2, 3], [2, 0, 3, 1]), 4)
    assert top.ids.tolist() == [[0, 1, 2, 3]] * 2
    torch.testing.assert_close(top.logprobs, said[:, [2, 0, 3, 1]])
    assert torch.isinf(top.rest).all()


@given(st.integers(0, 99), st.integers(1, 5), st.integers(0, 3))
def test_what_is_not_shared_is_the_rest_and_nothing_is_impossible_that_the_student_could_say(seed, shared, more):
    said = logprobs(3, shared + more, seed)
    top = translate(said, SharedTokens(list(range(shared)), list(range(shared))), shared + 2)
    torch.testing.assert_close(top.logprobs.exp().sum(-1) + top.rest.exp(), torch.ones(3))
    torch.testing.assert_close(top.rest.exp(), said[:, shared:].exp().sum(-1).clamp(min=LEAST), atol=2e-6, rtol=1e-5)


def test_a_student_without_other_tokens_is_compared_among_the_shared_ones():
    said = logprobs(3, 6)
    top = translate(said, SharedTokens([1, 0], [4, 2]), 2)
    torch.testing.assert_close(top.logprobs, said[:, [4, 2]].log_softmax(-1))
    assert torch.isinf(top.rest).all()
