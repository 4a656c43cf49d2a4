"""Calls whose parameters stand between tags become JSON, and how the text is cut changes nothing."""

# ruff: noqa: RUF001  (DeepSeek writes its tags with the full-width bar)

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.text.json_call import CallArguments, CallStart
from spoutnik.text.tool_calls import ToolFormat
from spoutnik.text.tool_parsers import Content

MARKUPS = ["qwen-coder", "dsml", "dsml-v3.2"]
BLOCKS = {"dsml": "｜DSML｜tool_calls", "dsml-v3.2": "｜DSML｜function_calls"}
Call = tuple[str, dict]


def read(form: str, pieces, schemas=None) -> tuple[str, list[tuple[str, str]]]:
    """The content and the calls (name, arguments) that a parser finds in a text in pieces."""
    parser, content, calls = ToolFormat(form, schemas=schemas or {}).parser(), "", []
    for part in [part for piece in pieces for part in parser.feed(piece)] + parser.close():
        if isinstance(part, Content):
            content += part.text
        elif isinstance(part, CallStart):
            calls.append((part.name, ""))
        else:
            assert isinstance(part, CallArguments)
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return content, calls


def as_text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write(form: str, calls: list[Call]) -> str:
    """What a model writes."""
    return write_qwen(calls) if form == "qwen-coder" else write_dsml(BLOCKS[form], calls)


def write_qwen(calls: list[Call]) -> str:
    written = []
    for name, values in calls:
        body = "".join(f"<parameter={key}>\n{as_text(value)}\n</parameter>\n" for key, value in values.items())
        written.append(f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>")
    return "\n".join(written)


def write_dsml(block: str, calls: list[Call]) -> str:
    written = f"<{block}>\n"
    for name, values in calls:
        written += f'<｜DSML｜invoke name="{name}">\n'
        for key, value in values.items():
            string = "true" if isinstance(value, str) else "false"
            written += f'<｜DSML｜parameter name="{key}" string="{string}">{as_text(value)}</｜DSML｜parameter>\n'
        written += "</｜DSML｜invoke>\n"
    return f"{written}</{block}>"


def schemas_of(calls: list[Call]):
    """What tells Qwen's strings from other values."""
    return {
        name: {"properties": {key: {"type": "string"} if isinstance(value, str) else {} for key, value in values.items()}}
        for name, values in calls
    }


names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
marks = st.sampled_from(["</tool_call>", "</function>", "5", "true", "<parameter", "\n", "</｜DSML｜tool_calls>"])
strings = st.text('ab"\\{}[]:, \né<>/') | marks
others = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers() | strings)
calls = st.dictionaries(names, st.dictionaries(names, strings | others, max_size=3), min_size=1, max_size=3)


@st.composite
def cut(draw, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=80)
@given(st.data(), st.sampled_from(MARKUPS), calls)
def test_marked_up_calls_become_json_however_the_text_is_cut(data, form, wanted):
    before = data.draw(st.sampled_from(["", "Let me look.", "I <tool_ <｜DSML｜to"]))
    text = before + ("\n\n" if before else "") + write(form, [*wanted.items()])
    content, found = read(form, data.draw(cut(text)), schemas_of([*wanted.items()]))
    assert (content, [(name, json.loads(arguments)) for name, arguments in found]) == (before, [*wanted.items()])


@settings(max_examples=80)
@given(st.data(), st.sampled_from(MARKUPS))
def test_any_text_gives_the_same_parts_however_it_is_cut(data, form):
    bits = ["<tool_call>", "</tool_call>", "<function=f>", "</function>", "<parameter=a>", "</parameter>", "<function=", "\n", "5"]
    bits += ["<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", "x", "<", ">"]
    bits += ['<｜DSML｜invoke name="f">', "</｜DSML｜invoke>", '<｜DSML｜parameter name="a" string="true">', " ", "</"]
    bits += ['<｜DSML｜parameter name="b">', "</｜DSML｜parameter>"]
    text = "".join(data.draw(st.lists(st.sampled_from(bits), max_size=10)))
    assert read(form, data.draw(cut(text))) == read(form, [text])


ADD = {"add": {"properties": {"code": {"type": "string"}, "size": {"type": ["integer", "null"]}, "mood": {"enum": ["1", "2"]}}}}


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        ("5", "code", "5"),
        ("5", "size", 5),
        ("5", "other", 5),
        ("None", "size", None),
        ("True", "other", True),
        ("1", "mood", "1"),
        ("NaN", "other", "NaN"),
        ("[1, 2", "other", "[1, 2"),
        ("", "code", ""),
        ("\n a\n\n", "code", "\n a\n\n"),
    ],
)
def test_a_schema_tells_strings_from_other_values_and_what_is_no_json_is_a_string(value, key, expected):
    text = f"<tool_call>\n<function=add>\n<parameter={key}>\n{value}\n</parameter>\n</function>\n</tool_call>"
    ((name, arguments),) = read("qwen-coder", [text], ADD)[1]
    assert (name, json.loads(arguments)) == ("add", {key: expected})


def test_a_call_that_breaks_off_within_a_value_is_no_whole_json():
    begun = "<tool_call>\n<function=add>\n<parameter=code>\nrm -r"
    assert read("qwen-coder", [begun], ADD) == ("", [("add", '{"code": "rm -r')])
    assert read("qwen-coder", [begun + "\n</parameter>\n</tool_call>"], ADD) == ("", [("add", '{"code": "rm -r"}')])


def test_calls_without_parameters_and_marks_without_calls():
    assert read("dsml", [write("dsml", [("f", {})])]) == ("", [("f", "{}")])
    nothing = "<tool_call>\nnothing\n</tool_call>"
    assert read("qwen-coder", [nothing]) == (nothing, [])
