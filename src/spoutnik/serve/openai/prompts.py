"""Prompts of /completions and /embeddings: one text or several, or their tokens."""

import asyncio
from dataclasses import dataclass
from typing import cast

from spoutnik.serve.errors import ContextTooLongError, InvalidRequestError
from spoutnik.serve.openai.schema import Prompts
from spoutnik.serve.service import Service


@dataclass(frozen=True)
class Encoded:
    """A prompt as text and tokens."""

    text: str
    token_ids: tuple[int, ...]


async def encode(prompts: Prompts, service: Service, param: str) -> list[Encoded]:
    """Every prompt, with the tokens that the model begins a text with. Raises InvalidRequestError for empty, long and too many ones."""
    return await asyncio.to_thread(_encode, prompts, service, param)


def _encode(prompts: Prompts, service: Service, param: str) -> list[Encoded]:
    alone = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
    several = cast("list[str] | list[list[int]]", [prompts] if alone else prompts)
    if not several:
        raise InvalidRequestError(f"{param} is empty; give at least one text.", param=param)
    if len(several) > service.settings.most_prompts:
        raise InvalidRequestError(f"{param} holds {len(several)} texts; this server takes {service.settings.most_prompts}.", param=param)
    return [_one(prompt, service, param) for prompt in several]


def _one(prompt: str | list[int], service: Service, param: str) -> Encoded:
    tokenizer, context = service.backend.tokenizer, service.backend.info.context
    if isinstance(prompt, str):
        token_ids = tuple(tokenizer.encode(prompt, add_special_tokens=True))
        if not token_ids and tokenizer.bos_token_id is not None:
            token_ids = (tokenizer.bos_token_id,)
    else:
        token_ids = tuple(prompt)
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < tokenizer.vocab_size:
            raise InvalidRequestError(f"{param} holds a token that the vocabulary of {tokenizer.vocab_size} has not.", param=param)
        prompt = tokenizer.decode(token_ids)
    if not token_ids:
        raise InvalidRequestError(f"{param} holds an empty text, and this model has no token that begins one.", param=param)
    if len(token_ids) > context:
        raise ContextTooLongError(len(token_ids), context, param)
    return Encoded(prompt, token_ids)
