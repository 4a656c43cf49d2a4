"""Whatever a model would like to write, an answer that must be JSON or a call is one, in every family's way of writing calls."""

# ruff: noqa: RUF001  (DeepSeek writes its tags with the full-width bar)

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.serve.backend import Shape
from spoutnik.serve.call_rules import FAMILIES
from spoutnik.serve.conversation import Conversation, Message, Tool
from spoutnik.serve.errors import ApiError, InvalidRequestError
from spoutnik.serve.grammar import Grammars
from spoutnik.serve.rendering import Prompt
from spoutnik.serve.shapes import shape_of
from spoutnik.text.json_call import CallStart
from spoutnik.text.markup_call import DSML
from spoutnik.text.r1_template import PLAIN_TOKENS, SPECIAL_TOKENS
from spoutnik.text.tokenizer import train_bpe
from spoutnik.text.tool_calls import ToolFormat
from spoutnik.text.tool_parsers import CALL, CALL_END, HERMES, HERMES_END, MISTRAL, SECTION, SECTION_END, SEPARATOR, Content

ASK = (Message("user", "the cat"),)
POINT = {
    "$ref": "#/$defs/point",
    "$defs": {"point": {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}},
}
LOOK = Tool("look", "", {"type": "object", "properties": {"at": {"const": 'a\n"b'}}, "required": ["at"], "additionalProperties": False})
MOVE = Tool("move", "", {"type": "object", "properties": {"to": {"$ref": "#/$defs/p"}}, "required": ["to"], "additionalProperties": False,
                         "$defs": {"p": {"enum": [1, 2]}}})  # fmt: skip


@pytest.fixture(scope="module", params=["own tokens", "no tokens"])
def tokenizer(request):
    """With marks as tokens of their own, as in the families' tokenizers, and without."""
    if request.param == "no tokens":
        return train_bpe(["the cat"], vocab_size=300)
    special = (*SPECIAL_TOKENS, SECTION, SECTION_END, CALL, SEPARATOR, CALL_END, DSML)
    return train_bpe(["the cat"], vocab_size=300, special_tokens=special, plain_tokens=(*PLAIN_TOKENS, HERMES, HERMES_END, MISTRAL))


def walk(tokenizer, shape: Shape, seed: int, before: str = "") -> str:
    """A text of random tokens, of which each is allowed, after tokens that are allowed as well; ends where it may."""
    constraint, rng, ids = Grammars(tokenizer).constraint(shape), random.Random(seed), []
    for token in tokenizer.encode(before):
        allowed = np.unpackbits(constraint.allowed().view(np.uint8), bitorder="little").nonzero()[0]
        assert set(range(tokenizer.vocab_size)) - set(allowed.tolist()) == tokenizer.eos_token_ids, "it may think anything, but not end"
        constraint.advance(token)
    while not constraint.finished:
        allowed = np.unpackbits(constraint.allowed().view(np.uint8), bitorder="little").nonzero()[0]
        ends = tokenizer.eos_token_ids.intersection(allowed.tolist())
        if ends or len(ids) > 400:
            break
        ids.append(int(rng.choice(allowed)))
        constraint.advance(ids[-1])
    return tokenizer.decode(ids)


FORMS = ["hermes", "mistral", "deepseek", "deepseek-r1", "llama", "qwen-coder", "dsml", "dsml-v3.2"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("several", [True, False])
def test_a_call_that_must_be_made_is_made_and_read(tokenizer, form, several):
    prompt = Prompt("", (), False, form_of(form, LOOK, MOVE))
    for seed in range(4):
        conversation = Conversation(ASK, (LOOK, MOVE), "required", parallel_calls=several)
        text = walk(tokenizer, shape_of(conversation, prompt, tokenizer), seed)
        content, calls = read(prompt.tools, text)
        assert content == "", text
        assert all(fits(*call) for call in calls)
        assert (len(calls) >= 1) if several else (len(calls) == 1)


def form_of(form, *tools):
    return ToolFormat(form, schemas={tool.name: tool.parameters for tool in tools})


def read(form, text):
    """The content, and the calls as (name, arguments)."""
    parser, content, calls = form.parser(), "", []
    for part in parser.feed(text) + parser.close():
        if isinstance(part, Content):
            content += part.text
        elif isinstance(part, CallStart):
            calls.append((part.name, ""))
        else:
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return content, [(name, json.loads(arguments)) for name, arguments in calls]


def fits(name, arguments):
    return (name, arguments) in (("look", {"at": 'a\n"b'}), ("move", {"to": 1}), ("move", {"to": 2}))


STRICT = replace(LOOK, strict=True), replace(MOVE, strict=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("several", [True, False])
def test_a_call_that_a_model_begins_of_its_own_accord_fits_if_its_tool_is_strict(tokenizer, form, several):
    prompt, said = Prompt("", (), False, form_of(form, *STRICT)), "" if form == "llama" else "I look.\n"
    mark = FAMILIES[form].mark or "{"
    shape = shape_of(Conversation(ASK, STRICT, parallel_calls=several), prompt, tokenizer)
    for seed in range(4):
        text = go_on(tokenizer, shape, f"{said}{mark}", seed)
        content, calls = read(prompt.tools, text)
        assert calls, text
        assert all(fits(*call) for call in calls)
        assert content.startswith(said.strip())
        if not several:
            assert (content, len(calls)) == (said.strip(), 1)


@pytest.mark.parametrize("form", FORMS)
def test_text_stays_free_where_tools_are_strict(tokenizer, form):
    shape = shape_of(Conversation(ASK, STRICT), Prompt("", (), False, form_of(form, *STRICT)), tokenizer)
    for text in ("Just text, with <tool and [TOOL and a brace: {}.\n", "é"):
        assert go_on(tokenizer, shape, text, 0, ends=True) == text


def test_only_what_is_strict_is_held_to_its_schema(tokenizer):
    shape = shape_of(Conversation(ASK, (LOOK, STRICT[1])), Prompt("", (), False, ToolFormat("hermes")), tokenizer)
    free = '<tool_call>\n{"name": "look", "arguments": {"anything": [1, 2]}}\n</tool_call>'
    assert go_on(tokenizer, shape, free, 0, ends=True) == free
    begun = '<tool_call>\n{"name": "move", "arguments": {"to": '
    assert {go_on(tokenizer, shape, begun, seed)[len(begun)] for seed in range(6)} == {"1", "2"}


def go_on(tokenizer, shape, text, seed, ends=False):
    """`text`, of which every token is allowed, and what random tokens make of it until it may end; with `ends`, it may end there."""
    constraint, rng, ids = Grammars(tokenizer).constraint(shape), random.Random(seed), tokenizer.encode(text)
    for place, token in enumerate(ids):
        assert token in allowed_by(constraint), tokenizer.decode(ids[: place + 1])
        constraint.advance(token)
    if ends:
        assert tokenizer.eos_token_ids <= allowed_by(constraint)
        return text
    while not constraint.finished:
        allowed = allowed_by(constraint)
        if tokenizer.eos_token_ids & allowed or len(ids) > 400:
            break
        ids.append(rng.choice(sorted(allowed)))
        constraint.advance(ids[-1])
    return tokenizer.decode(ids)


def allowed_by(constraint):
    return set(np.unpackbits(constraint.allowed().view(np.uint8), bitorder="little").nonzero()[0].tolist())


PLACES = Tool("go", "", {
    "type": "object", "required": ["to"], "additionalProperties": False,
    "properties": {"how": {"enum": ["on foot", "by car"]}, "to": {"type": "string"}, "fast": {"type": "boolean"}},
})  # fmt: skip
MARKED_UP = {
    "qwen-coder": (
        "<tool_call>\n<function=go>\n",
        "<parameter=to>\na </para\nb\n</parameter>\n<parameter=fast>\ntrue\n</parameter>\n",
        "</function>\n</tool_call>",
        "<parameter=how>\non",
    ),
    "dsml": (
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="go">\n',
        '<｜DSML｜parameter name="to" string="true">a </para\nb</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="fast" string="false">true</｜DSML｜parameter>\n',
        "</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        '<｜DSML｜parameter name="how" string="true">on',
    ),
}
"""What begins a call, two of its parameters, what ends it, and the beginning of another parameter."""


@pytest.mark.parametrize("form", MARKED_UP)
def test_marked_up_parameters_are_named_in_order_and_typed(tokenizer, form):
    prompt = Prompt("", (), False, form_of(form, PLACES))
    shape = shape_of(Conversation(ASK, (PLACES,), "required", parallel_calls=False), prompt, tokenizer)
    begun, parameters, end, other = MARKED_UP[form]
    text = begun + parameters + end
    assert go_on(tokenizer, shape, text, 0, ends=True)
    assert read(prompt.tools, text) == ("", [("go", {"to": "a </para\nb", "fast": True})])
    with pytest.raises(AssertionError, match="para"):
        go_on(tokenizer, shape, text.replace('"to"', '"from"').replace("=to>", "=from>"), 0)
    with pytest.raises(AssertionError, match="fast"):
        go_on(tokenizer, shape, text.replace("true\n</p", "maybe\n</p").replace(">true<", ">maybe<"), 0)
    assert go_on(tokenizer, shape, f"{begun}{other} f", 0).startswith(f"{begun}{other} foot")


def test_the_named_function_is_called(tokenizer):
    prompt = Prompt("", (), False, ToolFormat("hermes"))
    conversation = Conversation(ASK, (LOOK, MOVE), "required", "move")
    assert all('"move"' in walk(tokenizer, shape_of(conversation, prompt, tokenizer), seed) for seed in range(4))


def test_an_answer_satisfies_its_schema_behind_the_thinking(tokenizer):
    shape = shape_of(Conversation(ASK, schema=POINT), Prompt("", (), True, None), tokenizer)
    for seed in range(4):
        assert json.loads(walk(tokenizer, shape, seed, "hm {</think>"))["x"] in (1, 2)


def test_a_token_that_closes_the_thinking_may_begin_the_answer():
    tokenizer = train_bpe(["hm </think>{"] * 50, vocab_size=300, plain_tokens=())
    before = tokenizer.encode("hm </think>{")
    assert tokenizer.decode(before[-1:]).endswith(">{"), "else this tests nothing"
    shape = shape_of(Conversation(ASK, schema=POINT), Prompt("", (), True, None), tokenizer)
    for seed in range(4):
        assert json.loads("{" + walk(tokenizer, shape, seed, "hm </think>{"))["x"] in (1, 2)


def test_with_tools_beside_a_schema_an_answer_is_one_or_the_other(tokenizer):
    shape = shape_of(Conversation(ASK, (MOVE,), schema=POINT), Prompt("", (), False, ToolFormat("hermes")), tokenizer)
    texts = [walk(tokenizer, shape, seed) for seed in range(12)]
    assert {"<tool_call>" in text or json.loads(text)["x"] for text in texts} >= {True, 2}


def test_a_free_answer_has_no_shape(tokenizer):
    assert shape_of(Conversation(ASK, (LOOK,)), Prompt("", (), False, ToolFormat("hermes")), tokenizer) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://example.com/schema.json"},
        {"type": "string", "pattern": "(a"},
        {"type": "string", "pattern": "(?=a)b"},
        {"$ref": "#/nowhere"},
    ],
)
def test_a_schema_that_cannot_be_kept_to_is_refused_at_once(tokenizer, schema):
    with pytest.raises(UserError, match="simplify the schema"):
        Grammars(tokenizer).constraint(shape_of(Conversation(ASK, schema=schema), Prompt("", (), False, None), tokenizer))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"left": {"$ref": "#"}}, "required": ["left"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/x"}},
            "required": ["a"],
            "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}]}},
        },
        {"type": "integer", "multipleOf": 999_999_937},
        {"allOf": [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijkl"]},
        {"const": "\ud800"},
    ],
)
def test_a_schema_without_end_or_bound_is_refused_before_the_engine_sees_it(tokenizer, schema):
    with pytest.raises((UserError, InvalidRequestError), match=r"simplify the schema|a way out"):
        Grammars(tokenizer).constraint(shape_of(Conversation(ASK, schema=schema), Prompt("", (), False, None), tokenizer))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": False},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
        {"type": "string", "pattern": "^(a{1,500}){1,500}$"},
        {"type": "string", "pattern": "^(a|b)*a(a|b){400}$"},
        {"$ref": "#/$defs/0", "$defs": {str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(22)} | {"22": {"const": 1}}},
    ],
)  # fmt: skip
def test_a_schema_that_only_looks_endless_is_followed(tokenizer, schema):
    assert walk(tokenizer, shape_of(Conversation(ASK, schema=schema), Prompt("", (), False, None), tokenizer), 0)


KEYS = st.sampled_from(["a", "b", "é", "$ref", "type"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6,
)  # fmt: skip
SCHEMAS = st.recursive(
    VALUES | st.builds(lambda to: {"$ref": to}, st.sampled_from(["#", "#/", "#/$defs/a", "#/properties/a", "#/allOf/0", "#/%", "x"])),
    lambda inner: st.fixed_dictionaries(
        {}, optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "null", ["string", "null"], 5]),
            "properties": st.dictionaries(KEYS, inner, max_size=3) | VALUES, "required": st.lists(KEYS, max_size=2) | VALUES,
            "items": inner, "prefixItems": st.lists(inner, max_size=2), "minItems": st.integers(-1, 10**12) | VALUES,
            "allOf": st.lists(inner, max_size=2), "anyOf": st.lists(inner, max_size=3), "oneOf": st.lists(inner, max_size=2),
            "enum": st.lists(VALUES, max_size=3), "const": VALUES, "pattern": st.text("ab(){}[]*+?|^$.\\0129,", max_size=12),
            "minimum": VALUES, "multipleOf": VALUES, "minLength": st.integers(-1, 10**6), "maxLength": st.integers(-1, 10**20),
            "additionalProperties": inner, "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "format": st.sampled_from(["email", "uuid", "nonsense"]), "not": inner,
        },
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schema=SCHEMAS.filter(lambda schema: isinstance(schema, dict)))
def test_any_schema_is_refused_or_followed(tokenizer, schema):
    grammars = Grammars(tokenizer)
    try:
        constraint = grammars.constraint(shape_of(Conversation(ASK, schema=schema), Prompt("", (), False, None), tokenizer))
        for _ in range(10):
            allowed = np.unpackbits(constraint.allowed().view(np.uint8), bitorder="little").nonzero()[0]
            if constraint.finished or tokenizer.eos_token_ids.intersection(allowed.tolist()):
                break
            constraint.advance(int(allowed[0]))
    except (UserError, ApiError):
        pass


def test_answers_of_one_grammar_go_their_own_ways(tokenizer):
    grammars = Grammars(tokenizer)
    shape = shape_of(Conversation(ASK, schema=POINT), Prompt("", (), False, None), tokenizer)
    one, other = grammars.constraint(shape), grammars.constraint(shape)
    for token in tokenizer.encode('{"x": 2}'):
        one.advance(token)
    assert one.finished
    assert not other.finished
    for number in range(40):
        grammars.constraint(Shape(f'start: "{number}"', False))
    assert len(grammars._matchers) == 16
