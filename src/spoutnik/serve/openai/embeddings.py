"""POST /embeddings: the mean of a text's last hidden states, of length 1. The model was not trained for it, so expect likeness of topic."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from spoutnik.serve.auth import Caller
from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.openai.errors import error_body
from spoutnik.serve.openai.prompts import encode
from spoutnik.serve.openai.schema import EmbeddingRequest
from spoutnik.serve.openai.usage import usage_body
from spoutnik.serve.responses import Patient
from spoutnik.serve.service import Service


def router() -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/embeddings", response_model=None)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Vectors of texts."""
        service = service_of(request)
        served = service.model(body.model)
        if served.adapter:
            raise InvalidRequestError("Embeddings are the base model's; name it instead of an adapter.", param="model")
        prompts = [prompt.token_ids for prompt in await encode(body.input, service, "input")]
        caller = caller_of(request, body.user_id)
        return Patient(
            lambda: _vectors(prompts, body, service, served.name, caller), None, service.settings.keep_alive_s,
            lambda error: error_body(error, caller.request_id),
        )  # fmt: skip

    return routes


async def _vectors(prompts: list[tuple[int, ...]], body: EmbeddingRequest, service: Service, name: str, caller: Caller) -> dict[str, Any]:
    entries = []
    means, usage = await service.embed(prompts, caller)
    for index, mean in enumerate(means):
        vector = np.array(mean, dtype=np.float32)
        if body.dimensions is not None:
            if body.dimensions > len(vector):
                raise InvalidRequestError(f"dimensions is {body.dimensions}, but this model has {len(vector)}.", param="dimensions")
            vector = vector[: body.dimensions]
        vector /= max(float(np.linalg.norm(vector)), 1e-12)
        coded: Any = base64.b64encode(vector.astype("<f4").tobytes()).decode() if body.encoding_format == "base64" else vector.tolist()
        entries.append({"object": "embedding", "index": index, "embedding": coded})
    counts = usage_body(usage, service.settings.price.currency)
    return {
        "object": "list", "data": entries, "model": name,
        "usage": {key: counts[key] for key in ("prompt_tokens", "total_tokens", "cost")},
    }  # fmt: skip
