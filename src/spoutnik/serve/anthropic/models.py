"""GET /v1/models and /v1/models/{id} in Anthropic's shape."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from spoutnik.serve.anthropic.reading import PREFIX, read_model
from spoutnik.serve.dialect import service_of
from spoutnik.serve.service import Service

VERSION = "anthropic-version"
"""The header by which Anthropic's clients are known."""


class VersionedRoute(APIRoute):
    """A route for Anthropic's clients alone, at an address that other dialects have, too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if VERSION in Headers(scope=scope) else (Match.NONE, {})


def router(route_class: type[APIRoute]) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=route_class)

    @routes.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        """What answers here, by its names and by those that clients take for Anthropic's."""
        service = service_of(request)
        names = service.models()
        listed = [_model(service, name) for name in [*names, *(PREFIX + name for name in names)]]
        return {"data": listed, "has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        """One of them; aliases are found, too."""
        service = service_of(request)
        return _model(service, read_model(name, service).name)

    return routes


def _model(service: Service, name: str) -> dict[str, Any]:
    info = service.backend.info
    return {
        "id": name, "type": "model", "display_name": name.removeprefix(PREFIX), "lifecycle": "active",
        "created_at": datetime.fromtimestamp(info.created, UTC).isoformat().replace("+00:00", "Z"),
        "max_input_tokens": info.context, "max_tokens": info.context,
    }  # fmt: skip
