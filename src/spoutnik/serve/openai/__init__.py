"""OpenAI's dialect with DeepSeek's additions, under `/v1`, `/beta` and none."""

from fastapi import APIRouter

from spoutnik.serve.dialect import Dialect
from spoutnik.serve.openai import chat, completions, embeddings, models, responses
from spoutnik.serve.openai.errors import error_body

PREFIXES = ("/v1", "", "/beta", "/beta/v1")
"""OpenAI's, DeepSeek's own, and DeepSeek's for what it calls beta; here all of them do everything."""


def _router() -> APIRouter:
    router = APIRouter()
    for prefix in PREFIXES:
        for part in (chat, completions, responses, embeddings, models):
            router.include_router(part.router(), prefix=prefix, include_in_schema=prefix == "/v1")
    return router


OPENAI = Dialect("openai", _router, error_body, lambda path, headers: True)
