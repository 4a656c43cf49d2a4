"""Chat templates render as transformers renders them, and cannot leave their sandbox."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from spoutnik.errors import UserError
from spoutnik.text.template import render

USER = [{"role": "user", "content": "Make 34 <b>"}]
TEMPLATE = """
{%- set ns = namespace(last='') -%}
{{ bos_token }}
{% for message in messages %}
    {% if message.role == 'system' %}{% continue %}{% endif %}
    {% if message.role == 'assistant' %}
        {% generation %}{{ message.content.split('</think>')[-1] | trim }}{% endgeneration %}

    {% else %}
[{{ message.role | upper }}] {{ message.content }}
    {% endif %}
    {% set ns.last = message.role %}
{% endfor %}
{% if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}
{% if add_generation_prompt and ns.last == 'user' %}[ASSISTANT]<think>{% endif %}
"""
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=30)}), max_size=5
)


@given(messages, st.booleans(), st.sampled_from([None, [{"name": "ü", "x": [1, 2.5]}]]))
def test_renders_as_transformers_does(
    messages: list[dict[str, str]], add_generation_prompt: bool, tools: list[dict[str, Any]] | None
) -> None:
    theirs, _ = render_jinja_template(
        [messages], chat_template=TEMPLATE, tools=tools, add_generation_prompt=add_generation_prompt, bos_token="<s>"
    )
    assert render(TEMPLATE, messages, tools=tools, add_generation_prompt=add_generation_prompt, bos_token="<s>") == theirs[0]


def test_text_is_not_escaped_as_html_or_ascii() -> None:
    assert render("{{ messages[0].content }}{{ 'ü<' | tojson }}", USER) == 'Make 34 <b>"ü<"'


def test_strftime_now_is_there() -> None:
    assert render("{{ strftime_now('%Y') }}", USER).isdigit()


def test_absent_tools_are_none_and_not_undefined() -> None:
    assert render("{{ tools is none }}{{ documents is none }}", USER) == "TrueTrue"


def test_a_template_can_refuse_messages_with_its_own_words() -> None:
    with pytest.raises(UserError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", USER)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% include '/etc/passwd' %}",
        "{{ ('a' * 999999999) | length }}",
        "{{ (999999999 * 'a') | length }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ range(10 ** 9) | list }}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
        "{{ unclosed",
        "{{ messages[0] + 1 }}",
        "{{ messages[9].content.strip() }}",
        "{{ 1 / 0 }}",
        "(" + "{{ " + "(" * 5_000 + "}}",
        "a" * 2_000_000,
    ],
)
def test_hostile_or_broken_templates_end_in_one_sentence(template: str) -> None:
    with pytest.raises(UserError, match="chat template"):
        render(template, USER)


def test_ordinary_arithmetic_is_allowed() -> None:
    assert render("{{ ' ' * 4 }}{{ 2 ** 10 }}{{ 3 * 2.5 }}", USER) == "    10247.5"
