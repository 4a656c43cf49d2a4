"""The application: the gate, the dialects' routes, and what operators ask."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from spoutnik.errors import UserError
from spoutnik.serve.anthropic import ANTHROPIC
from spoutnik.serve.auth import Authenticator, NoKeys
from spoutnik.serve.backend import Backend
from spoutnik.serve.dialect import Dialect, service_of
from spoutnik.serve.document import describe
from spoutnik.serve.errors import ApiError, InvalidRequestError, NotFoundError, TooLargeError, told
from spoutnik.serve.gate import OPEN_PATHS, Gate, dialect_of
from spoutnik.serve.once import Answered
from spoutnik.serve.openai import OPENAI
from spoutnik.serve.service import Service
from spoutnik.serve.settings import Settings

DIALECTS: tuple[Dialect, ...] = (ANTHROPIC, OPENAI)
"""All that are served; a request that no other speaks is answered in the last one."""
log = logging.getLogger(__name__)


def create_app(backend: Backend, settings: Settings, authenticator: Authenticator | None = None) -> FastAPI:
    """The whole server in front of `backend`, which it starts and closes. `app.state.service` is its service."""
    service = Service(backend, settings, authenticator or NoKeys())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        yield
        await backend.close()
        await service.authenticator.close()
        service.templates.close()

    app = FastAPI(
        title="Spoutnik", version=version("spoutnik"), lifespan=lifespan, docs_url=None, redoc_url=None,
        middleware=[Middleware(Gate, service=service, dialects=DIALECTS)],
    )  # fmt: skip
    app.state.service = service
    app.state.answered = Answered()
    for dialect in DIALECTS:
        app.include_router(dialect.router())
    app.include_router(_operations())
    for kind in (ApiError, UserError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    describe(app, lambda path: dialect_of(DIALECTS, path, {}), OPEN_PATHS, service.authenticator.required)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """An error in the dialect of whoever asked."""
    problem = _problem(error, service_of(request))
    return dialect_of(DIALECTS, request.url.path, request.headers).refusal(problem, request.state.request_id)


def _problem(error: Exception, service: Service) -> ApiError:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return InvalidRequestError(f"{place or 'The body'}: {first['msg']}.", param=place or None)
    if isinstance(error, HTTPException):
        if error.status_code == 413:
            return TooLargeError(service.settings.most_body_bytes)
        kind = NotFoundError if error.status_code == 404 else InvalidRequestError
        problem = kind(f"{error.detail}.", headers=error.headers)
        problem.status = error.status_code
        return problem
    return told(error)


def _operations() -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @router.get("/ready", responses={503: {"description": "The server is about to stop."}})
    async def ready(request: Request) -> JSONResponse:
        """Whether new requests are taken."""
        draining = service_of(request).draining
        return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        page = service_of(request).metrics
        return Response(page.page(), media_type=page.content_type)

    return router
