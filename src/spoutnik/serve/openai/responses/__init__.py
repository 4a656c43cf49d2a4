"""POST /responses and /responses/input_tokens: OpenAI's Responses API, of which nothing is kept between requests."""

from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.document import streamed
from spoutnik.serve.once import OnceRoute
from spoutnik.serve.openai.responses.form import Form
from spoutnik.serve.openai.responses.reading import read_conversation, read_sampling
from spoutnik.serve.openai.responses.schema import CountRequest, ResponsesRequest
from spoutnik.serve.responses import Patient, Streamed


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=OnceRoute)

    @routes.post("/responses", response_model=None, responses=streamed("response"))
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        """Answers a conversation."""
        service, settings = service_of(request), service_of(request).settings
        served = service.model(body.model)
        conversation = read_conversation(body, settings, served)
        answers = await service.converse(conversation, read_sampling(body, settings), served, caller_of(request, body.user_id))
        form = Form(body, conversation, service)
        if body.stream:
            return Streamed(form.events(answers), answers, settings.keep_alive_s, form.broken)
        return Patient(lambda: form.whole(answers), answers, settings.keep_alive_s, form.failed)

    @routes.post("/responses/input_tokens")
    async def input_tokens(body: CountRequest, request: Request) -> dict[str, Any]:
        """How many tokens a conversation is to the model."""
        service = service_of(request)
        conversation = read_conversation(body, service.settings, service.model(body.model))
        prompt = await service.prompt(conversation, bounded=False)
        return {"object": "response.input_tokens", "input_tokens": len(prompt.token_ids)}

    return routes
