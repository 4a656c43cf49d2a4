"""The OpenAPI document of what is served, with everything that may come back: FastAPI knows the requests, this adds errors and keys."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from spoutnik.serve.dialect import Dialect
from spoutnik.serve.errors import ApiError

KEYS = {"bearer": {"type": "http", "scheme": "bearer"}, "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}
EVERYWHERE = {
    400: "The request cannot be served as it is.", 401: "The key is missing, unknown, revoked or over.",
    403: "A page of another site asks, or a server without keys is called by a name that is not its own.",
    429: "The key may not ask again yet; `retry-after` says when.", 500: "The server failed.",
    503: "The server is full or about to stop; `retry-after` says when to come back.",
}  # fmt: skip
NAMED = {404: "There is no such model."}
WITH_BODY = {
    **NAMED, 402: "The key's budget is spent.", 408: "The body did not come in time.",
    409: "A request with this `Idempotency-Key` is being answered.", 413: "The body is larger than the server reads.",
}  # fmt: skip
ID = {"x-request-id": {"schema": {"type": "string"}, "description": "The request's id in the server's log."}}


def describe(app: FastAPI, dialect_at: Callable[[str], Dialect], open_paths: frozenset[str], with_keys: bool) -> None:
    """Makes `app.openapi` tell the truth. `dialect_at` says in which dialect errors at a path are told."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        if "securitySchemes" in document.get("components", {}):
            return document
        components = document.setdefault("components", {})
        components["securitySchemes"] = KEYS
        schemas = components.setdefault("schemas", {})
        for path, operations in document["paths"].items():
            dialect = dialect_at(path)
            name = f"{dialect.name.title()}Error"
            schemas[name] = _schema(dialect.error(ApiError("What is wrong."), "req_0"))
            for operation in operations.values():
                responses = operation["responses"]
                responses.pop("422", None)
                if path in open_paths:
                    continue
                if with_keys:
                    operation["security"] = [{name: []} for name in KEYS]
                errors = EVERYWHERE | (WITH_BODY if "requestBody" in operation else NAMED if "{" in path else {})
                for known, meaning in sorted(errors.items()):
                    status = dialect.statuses.get(known, known)
                    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
                    responses[str(status)] = {"description": meaning, "headers": ID, "content": content}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(example: Any) -> dict[str, Any]:
    """A JSON schema of what looks like `example`: None may be a text."""
    if isinstance(example, dict):
        fields = {key: _schema(value) for key, value in example.items()}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": ["string", "null"] if example is None else "string"}


def streamed(model: str) -> dict[int | str, dict[str, Any]]:
    """What a route that may stream says of its answer."""
    data = {"type": "string", "description": f"A {model} chunk as JSON, at the end [DONE]."}
    events = {"schema": {"type": "object", "description": "Each event.", "properties": {"data": data}, "required": ["data"]}}
    return {200: {"content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": events}}}
