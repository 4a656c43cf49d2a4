"""What conversations become in the templates of several families: thinking, tools, beginnings."""

import json

import pytest

from spoutnik.serve.conversation import Conversation, Message, Thinking, Tool, ToolCall
from spoutnik.serve.errors import ContextTooLongError, InvalidRequestError
from spoutnik.serve.rendering import render
from spoutnik.serve.settings import Settings
from spoutnik.text.tokenizer import train_bpe

QWEN = """\
{%- if tools -%}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<tool_call><|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}"""
TURN = "<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n"
PLAIN = f"{{% for message in messages %}}{TURN}{{% endfor %}}{{{{ '<|im_start|>assistant\\n' }}}}"
ASK = Message("user", "the cat")
LOOK = Tool("look", "Looks.", {"type": "object"})
CALLED = Message("assistant", "", "I must look.", (ToolCall("c", "look", '{"at": "x"}'),))
RESULT = Message("tool", "a mat", tool_call_id="c")


@pytest.fixture(scope="module")
def make():
    """Renders a conversation with a template (None: R1's)."""
    tokenizer = train_bpe(["the cat sat on the mat"], vocab_size=300)
    r1 = tokenizer.chat_template

    def prompt(*messages, template=None, settings=None, context=2000, **changes):
        tokenizer.chat_template = r1 if template is None else template
        return render(Conversation(tuple(messages), **changes), tokenizer, settings or Settings(), context)

    return prompt


def test_thinking_is_opened_and_closed_as_wanted_in_every_template(make):
    for template in (None, QWEN):
        off = make(ASK, template=template, thinking=Thinking(False))
        assert (off.thinking, off.text.endswith("</think>\n\n")) == (False, True)
        on = make(ASK, template=template, thinking=Thinking(True))
        assert (on.thinking, on.text.endswith("<think>\n")) == (True, True)
    assert make(ASK).thinking
    assert not make(ASK, template=QWEN).thinking
    assert make(ASK, template=PLAIN, thinking=Thinking(True)).text.endswith("assistant\n")


def test_a_beginning_is_gone_on_from(make):
    begun = Message("assistant", "It sat")
    assert make(ASK, begun, continue_last=True).text.endswith("<think>\n\n</think>\n\nIt sat")
    assert make(ASK, begun, template=PLAIN, continue_last=True).text.endswith("assistant\nIt sat")
    thought = make(ASK, Message("assistant", "It sat", "Hm."), continue_last=True)
    assert (thought.text.endswith("<think>\nHm.\n</think>\n\nIt sat"), thought.thinking) == (True, False)
    thinking = make(ASK, Message("assistant", "", "Hm"), template=QWEN, continue_last=True)
    assert (thinking.text.endswith("<think>\nHm"), thinking.thinking) == (True, True)


@pytest.mark.parametrize("template", [None, QWEN])
def test_reasoning_comes_back_with_calls_and_within_a_turn_and_not_otherwise(make, template):
    old = Message("assistant", "It sat.", "Old thoughts.")
    text = make(ASK, old, ASK, CALLED, RESULT, template=template, tools=(LOOK,)).text
    assert "I must look." in text
    assert "Old thoughts." not in text
    later = make(ASK, CALLED, RESULT, old, ASK, template=template, tools=(LOOK,)).text
    assert "I must look." in later


def test_rules_for_reasoning_refuse_what_they_are_to_refuse(make):
    with pytest.raises(InvalidRequestError, match="not part of the input"):
        make(ASK, CALLED, RESULT, settings=Settings(reasoning_input="r1"))
    silent = Message("assistant", "", None, CALLED.tool_calls)
    with pytest.raises(InvalidRequestError, match="must be passed back"):
        make(ASK, silent, RESULT, settings=Settings(reasoning_input="v4-strict"))
    assert make(ASK, silent, RESULT, template=QWEN).text


def test_templates_that_know_tools_get_them_and_others_get_a_description(make):
    known = make(ASK, CALLED, RESULT, template=QWEN, tools=(LOOK,))
    assert json.dumps(LOOK.as_openai()) in known.text
    assert '{"at": "x"}' in known.text
    assert known.tools.name == "hermes"
    described = make(Message("system", "Be brief."), ASK, CALLED, RESULT, template=PLAIN, tools=(LOOK,))
    assert described.text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert '<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call>' in described.text
    assert "<|im_start|>user\n<tool_response>\na mat\n</tool_response>" in described.text
    assert make(ASK, template=PLAIN, tools=(LOOK,), tool_choice="none").tools is None
    assert "look" not in make(ASK, template=PLAIN, tools=(LOOK,), tool_choice="none").text


def test_what_does_not_fit_and_what_a_template_refuses_is_told(make):
    with pytest.raises(ContextTooLongError, match="context holds 3"):
        make(ASK, context=3)
    with pytest.raises(InvalidRequestError, match="no more"):
        make(ASK, template="{{ raise_exception('no more') }}")
