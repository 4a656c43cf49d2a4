"""What an answer must be, as a grammar: JSON, a call that must be made, or, where the model may choose, calls that fit."""

from dataclasses import replace

from spoutnik.serve.backend import Shape
from spoutnik.serve.call_rules import FAMILIES, rules_of_calls
from spoutnik.serve.conversation import Conversation
from spoutnik.serve.lark import TEXT, Lark, as_json
from spoutnik.serve.rendering import Prompt
from spoutnik.text.tokenizer import Tokenizer

NO_CALL = "NO_CALL: /([ \\n\\r\\t]*[^ \\n\\r\\t{](.|\\n)*)?/"
"""An answer that no family reads as a call from its first character on."""


def shape_of(conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer) -> Shape | None:
    """What the answer must be; None where it may be anything.

    A call that the model makes of its own accord is held to its function's schema where that is `strict`, and to being the only one where
    calls may not be parallel.
    """
    tools = conversation.tools if prompt.tools is not None else ()
    must_call = bool(tools) and conversation.tool_choice == "required"
    if not must_call and conversation.schema is None:
        return _fitting(conversation, prompt, tokenizer)
    choices, rules = [], ["gap: /[ \\n]{0,2}/"]
    if tools:
        assert prompt.tools is not None
        chosen = [tool for tool in tools if conversation.tool_name in (None, tool.name)]
        several = conversation.parallel_calls and conversation.tool_name is None
        rules += [*rules_of_calls(chosen, prompt.tools.name, several, Lark(tokenizer)), TEXT]
        choices.append("calls")
    if not must_call:
        assert conversation.schema is not None
        rules.append(f"shaped: {as_json(conversation.schema)}")
        choices.append("shaped")
    between = "gap " if prompt.thinking else ""  # the thinking and what follows
    return Shape("\n".join([f"start: {between}({' | '.join(choices)})", *rules]), prompt.thinking)


def _fitting(conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer) -> Shape | None:
    """Any text, in which calls fit."""
    form, several = prompt.tools, conversation.parallel_calls
    if form is None or (several and not any(tool.strict for tool in conversation.tools)):
        return None
    lark, mark = Lark(tokenizer), FAMILIES[form.name].mark
    tools = [tool if tool.strict else replace(tool, parameters={}) for tool in conversation.tools]
    rules = [TEXT, *rules_of_calls(tools, form.name, several, lark)]
    if not mark:
        return Shape("\n".join(["start: calls | NO_CALL", NO_CALL, *rules]), prompt.thinking)
    start = "start: (told after)* TEXT" if several else "start: told after | TEXT"
    return Shape("\n".join([start, *lark.until("told", mark), *rules]), prompt.thinking)
