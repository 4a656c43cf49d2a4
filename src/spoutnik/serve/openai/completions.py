"""POST /completions: text that is continued, scored, or filled in between a prefix and a suffix."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.serve.answer import End, Likelihood, Text
from spoutnik.serve.auth import Caller
from spoutnik.serve.backend import Cost, Usage, total
from spoutnik.serve.conversation import Sampling
from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.document import streamed
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.once import OnceRoute
from spoutnik.serve.openai.errors import error_body
from spoutnik.serve.openai.fim import with_gap
from spoutnik.serve.openai.head import Head
from spoutnik.serve.openai.logprobs import TextLogprobs
from spoutnik.serve.openai.prompts import Encoded, encode
from spoutnik.serve.openai.reading import read_sampling
from spoutnik.serve.openai.schema import CompletionRequest
from spoutnik.serve.openai.usage import usage_body
from spoutnik.serve.responses import DONE, Patient, Streamed, data
from spoutnik.serve.service import Answers, Served, Service

MAX_TOKENS = 16
"""New tokens of a request that does not say, as OpenAI documents it; a gap to be filled gets the server's own limit."""


def router() -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=OnceRoute)

    @routes.post("/completions", response_model=None, responses=streamed("text_completion"))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continues texts."""
        service = service_of(request)
        served = service.model(body.model)
        job = await _job(body, service, served, caller_of(request, body.user_id))
        stack, head, request_id = AsyncExitStack(), Head.of("cmpl", service, served), caller_of(request).request_id
        answers = await job.begin(stack) if job.sampling.max_tokens and not job.echo else None
        pieces, keep_alive_s = _pieces(job, answers, stack), service.settings.keep_alive_s
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _chunks(pieces, job, head, with_usage)
            return Streamed(events, stack, keep_alive_s, lambda error: data(error_body(error, request_id)))
        return Patient(lambda: _whole(pieces, job, head), stack, keep_alive_s, lambda error: error_body(error, request_id))

    return routes


@dataclass(frozen=True)
class Job:
    """What a request for completions asks."""

    service: Service
    served: Served
    caller: Caller
    prompts: list[Encoded]
    sampling: Sampling
    echo: bool

    @property
    def choices(self) -> int:
        """How many texts are made: `n` of each prompt, one prompt after the other."""
        return len(self.prompts) * self.sampling.n

    async def begin(self, stack: AsyncExitStack) -> Answers:
        """Has the backend begin; `stack` will end it."""
        token_ids = [prompt.token_ids for prompt in self.prompts]
        answers = await self.service.continue_(token_ids, self.sampling, self.served, self.caller)
        stack.push_async_callback(answers.aclose)
        return answers

    async def echoes(self) -> "tuple[list[Piece], Usage]":
        """The prompts as they were given, with their tokens' log-probabilities where these are asked for, and what that took."""
        wanted, n = self.sampling.logprobs, self.sampling.n
        if wanted is None:
            return [Piece(index, self.prompts[index // n].text) for index in range(self.choices)], Usage()
        scored, usage = await self.service.score([prompt.token_ids for prompt in self.prompts], wanted, self.served, self.caller)
        pieces = []
        for index in range(self.choices):
            prompt, scores = self.prompts[index // n], scored[index // n]
            tops = scores.top_logprobs or [[] for _ in scores.logprobs]
            rest = zip(prompt.token_ids[1:], scores.logprobs, tops, strict=True)
            pieces.append(Piece(index, prompt.text, ((prompt.token_ids[0], None, []), *rest)))
        return pieces, usage


@dataclass(frozen=True)
class Piece:
    """More of one text: tokens as (token, its log-probability, the likeliest ones)."""

    index: int
    text: str = ""
    tokens: tuple[Any, ...] = ()
    end: End | None = None


async def _job(body: CompletionRequest, service: Service, served: Served, caller: Caller) -> Job:
    settings, prompt = service.settings, body.prompt
    default = MAX_TOKENS
    if body.suffix:
        if not isinstance(prompt, str) or body.echo:
            raise InvalidRequestError("suffix goes with one text as the prompt, and without echo.", param="suffix")
        prompt, default = with_gap(prompt, body.suffix, service.backend.tokenizer), settings.max_tokens
    max_tokens = default if body.max_tokens is None else body.max_tokens
    sampling = read_sampling(body, settings, max_tokens, body.logprobs)
    prompts = await encode(prompt, service, "prompt")
    if len(prompts) * sampling.n > settings.most_prompts:
        raise InvalidRequestError(f"{len(prompts)} prompts times n = {sampling.n} are more than {settings.most_prompts}.", param="n")
    return Job(service, served, caller, prompts, sampling, bool(body.echo))


async def _pieces(job: Job, answers: Answers | None, stack: AsyncExitStack) -> AsyncIterator[list[Piece]]:
    """Everything that comes of a job, in order."""
    scoring = [Cost()] * job.choices
    if job.echo:
        pieces, usage = await job.echoes()
        scoring[0] = usage.cost
        yield pieces
    if not job.sampling.max_tokens:
        lengths = [len(job.prompts[index // job.sampling.n].token_ids) for index in range(job.choices)]
        usages = [Usage(prompt_tokens=length, cost=cost) for length, cost in zip(lengths, scoring, strict=True)]
        yield [Piece(index, end=End("length", usage)) for index, usage in enumerate(usages)]
        return
    async for parts in answers or await job.begin(stack):
        pieces = [Piece(index) for index in range(job.choices)]
        for index, part in parts:
            piece = pieces[index]
            if isinstance(part, Text):
                pieces[index] = replace(piece, text=piece.text + part.text)
            elif isinstance(part, Likelihood):
                pieces[index] = replace(piece, tokens=(*piece.tokens, (part.token_id, part.logprob, part.top)))
            elif isinstance(part, End):
                usage = replace(part.usage, cost=part.usage.cost + scoring[index])
                pieces[index] = replace(piece, end=replace(part, usage=usage))
        yield [piece for piece in pieces if piece.text or piece.tokens or piece.end]


def _logprobs(job: Job) -> list[TextLogprobs | None]:
    wanted = job.sampling.logprobs is not None
    starts = [0 if job.echo else len(prompt.text) for prompt in job.prompts for _ in range(job.sampling.n)]
    return [TextLogprobs(job.service.token_bytes, start) if wanted else None for start in starts]


async def _chunks(pieces: AsyncIterator[list[Piece]], job: Job, head: Head, with_usage: bool) -> AsyncIterator[str]:
    usages, logprobs = [Usage()] * job.choices, _logprobs(job)
    others = {"usage": None} if with_usage else {}
    async for several in pieces:
        text = ""
        for piece in several:
            likely = logprobs[piece.index]
            if likely is not None:
                for token in piece.tokens:
                    likely.add(*token)
            choice = {
                "index": piece.index, "text": piece.text, "logprobs": None if likely is None else likely.take(),
                "finish_reason": piece.end.finish_reason if piece.end is not None else None,
            }  # fmt: skip
            if piece.end is not None:
                usages[piece.index] = piece.end.usage
            text += data(head.body("text_completion", [choice], **others))
        yield text
    if with_usage:
        yield data(head.body("text_completion", [], usage=usage_body(total(usages, job.sampling.n), head.currency)))
    yield DONE


async def _whole(pieces: AsyncIterator[list[Piece]], job: Job, head: Head) -> dict[str, Any]:
    texts, usages, logprobs = [""] * job.choices, [Usage()] * job.choices, _logprobs(job)
    reasons = [""] * job.choices
    async for several in pieces:
        for piece in several:
            texts[piece.index] += piece.text
            if (likely := logprobs[piece.index]) is not None:
                for token in piece.tokens:
                    likely.add(*token)
            if piece.end is not None:
                usages[piece.index], reasons[piece.index] = piece.end.usage, piece.end.finish_reason
    choices = [
        {"index": index, "text": text, "logprobs": None if likely is None else likely.take(), "finish_reason": reason}
        for index, (text, likely, reason) in enumerate(zip(texts, logprobs, reasons, strict=True))
    ]
    return head.body("text_completion", choices, usage=usage_body(total(usages, job.sampling.n), head.currency))
