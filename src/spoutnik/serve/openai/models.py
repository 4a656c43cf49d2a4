"""GET /models and /models/{id}, and DeepSeek's /user/balance."""

from typing import Any

from fastapi import APIRouter, Request

from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.service import Service


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/models")
    async def models(request: Request) -> dict[str, Any]:
        """What answers here."""
        service = service_of(request)
        return {"object": "list", "data": [_model(service, name) for name in service.models()]}

    @routes.get("/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        """One of them; aliases are found, too."""
        service = service_of(request)
        return _model(service, service.model(name).name)

    @routes.get("/user/balance")
    async def balance(request: Request) -> dict[str, Any]:
        """What the caller may still spend; nothing is listed where nothing is counted."""
        left = await service_of(request).authenticator.balance(caller_of(request).principal)
        if left is None:
            return {"is_available": True, "balance_infos": []}
        amount = f"{max(left.total, 0.0):.2f}"
        info = {"currency": left.currency, "total_balance": amount, "granted_balance": amount, "topped_up_balance": "0.00"}
        return {"is_available": left.total > 0, "balance_infos": [info]}

    return routes


def _model(service: Service, name: str) -> dict[str, Any]:
    info = service.backend.info
    return {"id": name, "object": "model", "created": info.created, "owned_by": "spoutnik", "max_model_len": info.context}
