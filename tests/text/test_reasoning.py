"""The think parser gives one result however the text is cut."""

# ruff: noqa: RUF001 (DeepSeek writes its turn markers with full-width bars)

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.text.reasoning import ThinkParser, split, starts_thinking

FRAGMENTS = [
    "<think>",
    "</think>",
    "<",
    "</",
    "<thi",
    "nk>",
    "</thin",
    "k>",
    " ",
    "\n",
    "a",
    "34",
    "<answer>",
    "<<think>",
    "</</think>",
    "é",
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


def read_in_pieces(text: str, cuts: list[int], thinking: bool) -> tuple[str, str]:
    parser, edges = ThinkParser(thinking), sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    deltas = [parser.feed(text[a:b]) for a, b in itertools.pairwise(edges)] + [parser.close()]
    return "".join(reasoning for reasoning, _ in deltas), "".join(content for _, content in deltas)


@given(texts, st.lists(st.integers(0, 200), max_size=30), st.booleans())
def test_cutting_the_text_never_changes_the_result(text: str, cuts: list[int], thinking: bool) -> None:
    assert read_in_pieces(text, cuts, thinking) == split(text, thinking)


@given(texts, st.booleans())
def test_feeding_single_characters_equals_splitting_at_once(text: str, thinking: bool) -> None:
    assert read_in_pieces(text, list(range(len(text))), thinking) == split(text, thinking)


@given(texts)
def test_started_in_thinking_the_first_closing_tag_decides(text: str) -> None:
    reasoning, _, content = text.partition("</think>")
    assert split(text, thinking=True) == (reasoning, content)


@given(texts)
def test_started_outside_only_a_leading_think_opens(text: str) -> None:
    if text.lstrip().startswith("<think>"):
        reasoning, _, content = text.lstrip().removeprefix("<think>").partition("</think>")
        assert split(text, thinking=False) == (reasoning, content)
    else:
        assert split(text, thinking=False) == ("", text)


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("a</think>b", True, ("a", "b")),
        ("a</think>b</think>c", True, ("a", "b</think>c")),
        ("<think>a</think>b", True, ("<think>a", "b")),
        (" \n<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
        ("a</think>b", False, ("", "a</think>b")),
        ("cut off", True, ("cut off", "")),
        ("cut off</thi", True, ("cut off</thi", "")),
        ("  <thi", False, ("", "  <thi")),
        ("", True, ("", "")),
    ],
)
def test_rules(text: str, thinking: bool, expected: tuple[str, str]) -> None:
    assert split(text, thinking) == expected


def test_text_that_cannot_be_a_tag_is_not_held_back() -> None:
    parser = ThinkParser(thinking=True)
    assert parser.feed("abc<") == ("abc", "")
    assert parser.feed("d") == ("<d", "")
    assert parser.feed("</think>") == ("", "")
    assert parser.feed("</think") == ("", "</think")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<｜User｜>Make 34<｜Assistant｜><think>\n", True),
        ("<｜User｜>Make 34<｜Assistant｜></think>", False),
        ("<｜User｜>Make 34<｜Assistant｜>", False),
        ("<｜User｜>what is <think>?<｜Assistant｜>", False),
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\nSo far,", True),
        ("<｜User｜>a<｜Assistant｜><think>b</think>c<｜User｜>d<｜Assistant｜>", False),
        ("enclosed within <think> </think> tags. User: hi. Assistant:", False),
        ("enclosed within <think> </think> tags. User: hi. Assistant: <think>", True),
        ("Make 34 from 25, 17, 8.\n<think>\n", True),
        ("", False),
    ],
)
def test_starts_thinking_reads_the_state_that_the_prompt_left(prompt: str, expected: bool) -> None:
    assert starts_thinking(prompt) is expected
