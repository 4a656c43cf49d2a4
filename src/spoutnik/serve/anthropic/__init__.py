"""Anthropic's dialect, under `/v1` and, as at DeepSeek, `/anthropic/v1`."""

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.routing import APIRoute

from spoutnik.serve.allowance import anthropic_headers
from spoutnik.serve.anthropic import messages, models
from spoutnik.serve.anthropic.errors import STATUSES, error_body
from spoutnik.serve.dialect import Dialect

OWN = "/anthropic"


def _router() -> APIRouter:
    router = APIRouter()
    router.include_router(messages.router())
    router.include_router(models.router(models.VersionedRoute), include_in_schema=False)
    router.include_router(messages.router(), prefix=OWN, include_in_schema=False)
    router.include_router(models.router(APIRoute), prefix=OWN, include_in_schema=False)
    return router


def _speaks(path: str, headers: Mapping[str, str]) -> bool:
    return path.startswith(("/v1/messages", f"{OWN}/")) or models.VERSION in headers


ANTHROPIC = Dialect("anthropic", _router, error_body, _speaks, STATUSES, anthropic_headers)
