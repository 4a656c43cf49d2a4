"""The chat format of DeepSeek-R1: its special tokens and its template, for the tokenizers that we train.

Source: the tokenizer files released with DeepSeek-R1. We deviate in one point: with the variable `keep_reasoning` the template keeps
the thinking of earlier assistant turns. R1 always cuts it, which is right for a conversation and wrong for training, where the thinking
is what the model shall learn.
"""

# ruff: noqa: RUF001  (DeepSeek writes its tokens with the full-width bar)

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"

SPECIAL_TOKENS = (BOS, EOS, PAD, "<｜User｜>", "<｜Assistant｜>")
"""Vanish when decoding with `skip_special_tokens`; their ids are 0, 1, 2, ... in this order, as in DeepSeek's vocabulary."""

PLAIN_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
"""One token each, but part of the visible text: parsers and verifiers read them after decoding."""

R1_TEMPLATE = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages if message['role'] == 'system' -%}
    {%- set ns.system = ns.system ~ ('\\n\\n' if ns.system else '') ~ message['content'] -%}
{%- endfor -%}
{{- bos_token ~ ns.system -}}
{%- for message in messages if message['role'] != 'system' -%}
    {%- set content = message['content'] -%}
    {%- if message['role'] == 'user' -%}
        {{- '<｜User｜>' ~ content -}}
    {%- elif message['role'] == 'assistant' -%}
        {%- if not keep_reasoning -%}
            {%- set content = content.split('</think>')[-1] -%}
        {%- elif '</think>' in content and not content.startswith('<think>') -%}
            {%- set content = '<think>\\n' ~ content -%}
        {%- endif -%}
        {{- '<｜Assistant｜>' ~ content ~ eos_token -}}
    {%- else -%}
        {{- raise_exception('the role ' ~ message['role'] ~ ' is unknown to this template: use system, user or assistant') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<｜Assistant｜><think>\\n' -}}
{%- endif -%}
"""
