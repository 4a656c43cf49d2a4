"""Function calls are found in what each family writes, and how the text is cut changes nothing."""

# ruff: noqa: RUF001  (DeepSeek writes its tokens with the full-width bar)

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.text.json_call import CallArguments, CallStart
from spoutnik.text.tool_calls import ToolFormat, choose, describe, written
from spoutnik.text.tool_parsers import Content

FORMATS = ["hermes", "mistral", "deepseek", "deepseek-r1", "llama"]
SECTION, SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def read(form: str, pieces) -> tuple[str, list[tuple[str, str]]]:
    """The content and the calls (name, arguments) that a parser finds in a text in pieces."""
    parser, content, calls = ToolFormat(form).parser(), "", []
    for part in [part for piece in pieces for part in parser.feed(piece)] + parser.close():
        if isinstance(part, Content):
            content += part.text
        elif isinstance(part, CallStart):
            calls.append((part.name, ""))
        else:
            assert isinstance(part, CallArguments)
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return content, calls


def write(form: str, calls: list[tuple[str, str]]) -> str:
    """What a model of the family writes."""
    if form == "hermes":
        return "\n".join(f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {given}}}\n</tool_call>' for name, given in calls)
    if form == "mistral":
        objects = [f'{{"name": {json.dumps(name)}, "arguments": {given}}}' for name, given in calls]
        return f"[TOOL_CALLS][{', '.join(objects)}]"
    if form == "llama":
        return "; ".join(f'{{"name": {json.dumps(name)}, "parameters": {given}}}' for name, given in calls)
    if form == "deepseek":
        return SECTION + "".join(f"{CALL}{name}{SEPARATOR}{given}{CALL_END}" for name, given in calls) + SECTION_END
    inner = "\n".join(f"{CALL}function{SEPARATOR}{name}\n```json\n{given}\n```{CALL_END}" for name, given in calls)
    return SECTION + inner + SECTION_END


names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
marks = st.sampled_from(["</tool_call>", SECTION_END, CALL_END])
leaves = st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[]:, \né<>') | marks
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner))
arguments = st.dictionaries(names, values).map(lambda value: json.dumps(value, ensure_ascii=False))
calls = st.lists(st.tuples(names, arguments), min_size=1, max_size=3)


@st.composite
def cut(draw, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=60)
@given(st.data(), st.sampled_from(FORMATS), calls)
def test_calls_are_found_however_the_text_is_cut(data, form, wanted):
    before = "" if form == "llama" else data.draw(st.sampled_from(["", "Let me look.", "I [TOOL <tool_"]))
    text = before + ("\n\n" if before else "") + write(form, wanted)
    assert read(form, data.draw(cut(text))) == (before, wanted)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(FORMATS))
def test_any_text_gives_the_same_parts_however_it_is_cut(data, form):
    bits = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", SECTION, SECTION_END, CALL, SEPARATOR, CALL_END, "```json\n", "<|python_tag|>"]
    bits += ['{"name": "f"', ', "arguments": {"a": 1}', "}", "{", '"', "name", " ", "\n", "é", '{"name": "f", "parameters": "{}"}', "["]
    text = "".join(data.draw(st.lists(st.sampled_from(bits), max_size=8)))
    assert read(form, data.draw(cut(text))) == read(form, [text])


@settings(max_examples=60)
@given(
    st.data(), st.sampled_from(FORMATS), st.text("<tol_ca[TOOL \n{}x").filter(lambda text: "<tool_call>" not in text and "{" not in text)
)
def test_text_without_calls_is_content_to_the_letter(data, form, text):
    assert read(form, data.draw(cut(text))) == (text, [])


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "<tool_call>no object</tool_call>"),
        ("hermes", '<tool_call>{"name": 5}</tool_call>'),
        ("hermes", "<tool_call>{}"),
        ("mistral", "[TOOL_CALLS] nothing"),
        ("deepseek", f"{SECTION}oops{SECTION_END}"),
        ("llama", '{"answer": 42}'),
        ("llama", '{"answer": '),
        ("llama", "<|python_tag|>print(6 * 7)"),
    ],
)
def test_what_only_begins_like_a_call_is_content(form, text):
    assert read(form, [text]) == (text, [])


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', ("f", '{"a": 1}')),
        ('{"name": "f"}', ("f", "{}")),
        ('{"name": "f", "arguments": null}', ("f", "{}")),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', ("f", '{"a": 1}')),
        ('{"id": [1, {"x": "}"}], "name": "f", "arguments": {} }', ("f", "{}")),
        ('{"name": "f", "arguments": {"a": [1, 2', ("f", '{"a": [1, 2')),
    ],
    ids=["arguments first", "no arguments", "null", "arguments as a string", "other keys", "cut off"],
)
def test_objects_are_read_leniently(text, call):
    assert read("hermes", [f"<tool_call>{text}</tool_call>"]) == ("", [call])


def test_text_around_and_between_calls_is_kept():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read("hermes", [f"one \n{call}\n\n{call}  two "]) == ("one  two ", [("f", "{}")] * 2)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ tools }} <｜tool▁calls▁begin｜>'function' ```json", "deepseek-r1"),
        ("{{ tools }} <｜tool▁calls▁begin｜>", "deepseek"),
        ("{{ tools }} [TOOL_CALLS]", "mistral"),
        ("{{ tools }} <｜DSML｜tool_calls>", "dsml"),
        ("{{ tools }} <｜DSML｜function_calls>", "dsml-v3.2"),
        ("{{ tools }} <tool_call>\n<function=' + name", "qwen-coder"),
        ("{{ tools }} <tool_call>", "hermes"),
        ('<|start_header_id|>{{ tools }} "parameters"', "llama"),
        ("<|im_start|>{{ messages }}", "hermes"),
    ],
)
def test_the_template_tells_the_format(template, name):
    form = choose(template)
    assert (form.name, form.described) == (name, "tools" not in template)


def test_a_described_call_is_read_as_it_was_asked_for():
    tool = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
    assert json.dumps(tool["function"]) in describe([tool])
    assert read("hermes", [written("look", '{"at": "x"}')]) == ("", [("look", '{"at": "x"}')])
