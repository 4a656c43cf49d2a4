"""A ChatML template that thinks, for models of that family (SmolLM2, Qwen) that learn to reason by distillation.

R1's distilled models likewise got a template of their own in place of their base's: no default system message, and a generation prompt
that already opens the thinking.
"""

CHATML_THINKING = """\
{%- for message in messages -%}
    {%- set content = message['content'] -%}
    {%- if message['role'] == 'assistant' and not keep_reasoning -%}
        {%- set content = content.split('</think>')[-1].lstrip() -%}
    {%- endif -%}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ content ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n<think>\\n' -}}
{%- endif -%}
"""
