"""OpenAI's dialect with DeepSeek's additions, under `/v1`, `/beta` and none."""

from fastapi import APIRouter

from spoutnik.serve.dialect import Dialect
from spoutnik.serve.openai import chat
from spoutnik.serve.openai.errors import error_body


def _router() -> APIRouter:
    router = APIRouter()
    for prefix in ("/v1", "", "/beta"):
        router.include_router(chat.router(), prefix=prefix, include_in_schema=prefix == "/v1")
    return router


OPENAI = Dialect("openai", _router, error_body, lambda path, headers: True)
