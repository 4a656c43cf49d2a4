"""Chat templates: Jinja text that comes with a checkpoint, so it runs sandboxed and with limits.

The environment is the one that Hugging Face's templates are written for: blocks trimmed, `break` and `continue`, `raise_exception`,
`strftime_now`, a `tojson` that leaves text readable, and `{% generation %}` as a plain bracket.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from spoutnik.errors import UserError

MAX_TEMPLATE_CHARS = 1 << 20
MAX_RENDERED_CHARS = 16 << 20
_MAX_PRODUCT = 1 << 20
_MAX_EXPONENT = 64


def render(template: str, messages: Sequence[Mapping[str, Any]], /, **variables: Any) -> str:
    """The prompt that `template` makes of `messages` and `variables` (`add_generation_prompt`, `tools`, `bos_token`, ...).

    As in Hugging Face's library, `tools` and `documents` are None unless given. Raises UserError if the template is broken, leaves the
    sandbox, refuses the messages or writes too much. Neither time nor memory on the way are bounded; `template_process.py` bounds both.
    """
    pieces, size = [], 0
    try:
        for piece in _compiled(template).generate({"messages": messages, "tools": None, "documents": None, **variables}):
            size += len(piece)
            if size > MAX_RENDERED_CHARS:
                raise UserError(
                    f"the chat template wrote more than {MAX_RENDERED_CHARS} characters; use shorter messages or another template."
                )
            pieces.append(piece)
    except jinja2.TemplateError as error:
        raise UserError(
            f"the chat template refused these messages ({error}); change their roles or order, or use another template."
        ) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise UserError(f"the chat template failed on these messages ({type(error).__name__}: {error}); check their fields.") from error
    return "".join(pieces)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise UserError(
            f"the chat template has {len(template)} characters, more than the {MAX_TEMPLATE_CHARS} that we read; use a smaller one."
        )
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise UserError(f"the chat template is not valid Jinja ({error}); restore the one that the model came with.") from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses to build huge numbers and strings by multiplication."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (_small(left, _MAX_PRODUCT) and _small(right, _MAX_EXPONENT)):
            raise SecurityError("a power is too large")
        if operator == "*" and _extent(left) * _extent(right) > _MAX_PRODUCT and not _floats(left, right):
            raise SecurityError("a product is too large")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's own text for training masks; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _extent(value: Any) -> int:
    """How much a factor can enlarge a product: the length of a sequence, the magnitude of a number."""
    return len(value) if hasattr(value, "__len__") else abs(value) if isinstance(value, int) else 1


def _floats(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values) and any(isinstance(value, float) for value in values)


def _small(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and abs(value) <= most


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
