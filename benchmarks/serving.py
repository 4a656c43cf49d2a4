"""What the server costs beside the engine: seconds a token of the engine alone, and of the same answers streamed over HTTP.

    python benchmarks/serving.py smollm2 --batch 1 32

Both are one engine in one process, in turns; the client has the same cores. Then the same plain requests before and after requests that
steer their draws (penalties, a schema's grammar, the likeliest tokens) ran on the engine. Rates are of the median of five runs.
"""

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import uvicorn

from spoutnik.cli.answer import fastest_dtype
from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.sampler import derive_seed
from spoutnik.errors import UserError
from spoutnik.library import DTYPES
from spoutnik.recipe.tables import Price
from spoutnik.serve.app import create_app
from spoutnik.serve.backend import Shape
from spoutnik.serve.grammar import Grammars
from spoutnik.serve.listening import listen
from spoutnik.serve.opening import Opening, open_backend
from spoutnik.serve.settings import Settings

RUNS = 5


def measured(works: dict[str, Callable[[], None]], tokens: int) -> dict[str, float]:
    """Microseconds a token of each kind of work, in turns; the first turn is not counted."""
    seconds: dict[str, list[float]] = {kind: [] for kind in works}
    for turn in range(1 + RUNS):
        for kind, work in works.items():
            began = time.perf_counter()
            work()
            if turn:
                seconds[kind].append(time.perf_counter() - began)
    return {kind: 1e6 * median(taken) / tokens for kind, taken in seconds.items()}


async def streamed(port: int, bodies: Sequence[bytes]) -> None:
    """Has all of them answered at once, and reads every event."""

    async def one(body: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        while await reader.readline():
            pass
        writer.close()

    await asyncio.gather(*map(one, bodies))


def body(request: Request) -> bytes:
    """What asks for it over HTTP."""
    asked = {"model": "model", "prompt": list(request.prompt_ids), "max_tokens": request.max_new_tokens, "seed": request.seed}
    return json.dumps({**asked, "stream": True}).encode()


def steer(engine: Engine, request: Request) -> None:
    """Runs the request with each thing that changes what is drawn."""
    constraint = Grammars(engine.tokenizer).constraint(Shape('start: "{" /[a-z ]{40,60}/ "}"', thinking=False))
    kinds: tuple[dict[str, Any], ...] = (
        {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.2, "logit_bias": {1: -5.0}},
        {"constraint": constraint}, {"top_logprobs": 20}, {"min_p": 0.1},
    )  # fmt: skip
    engine.generate([replace(request, seed=seed, **kind) for seed, kind in enumerate(kinds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--new", type=int, default=32, help="tokens of an answer")
    options = parser.parse_args()
    dtype, most = fastest_dtype(), max(options.batch)
    worker = open_backend(Opening(options.model, "model", DTYPES[dtype]), Price(), lambda what: None)
    engine = worker._engine
    prompts = [worker.tokenizer.encode(f"{index} stories begin with") for index in range(2 * most)]
    drawn = engine.generate([Request(ids, options.new) for ids in prompts])
    whole = [ids for ids, completion in zip(prompts, drawn, strict=True) if completion.finish_reason == "length"][:most]
    if len(whole) < most:
        raise UserError(f"Only {len(whole)} of {len(prompts)} answers go on for {options.new} tokens; ask for fewer with --new.")
    batches = {batch: [Request(ids, options.new, seed=derive_seed(0, 0)) for ids in whole[:batch]] for batch in options.batch}

    def direct(batch: int) -> Callable[[], None]:
        def work() -> None:
            engine.generate(batches[batch])

        return work

    tokens = {batch: sum(len(one.token_ids) for one in engine.generate(requests)) for batch, requests in batches.items()}
    before = {batch: measured({"engine": direct(batch)}, tokens[batch])["engine"] for batch in batches}
    steer(engine, batches[options.batch[0]][0])
    after = {batch: measured({"engine": direct(batch)}, tokens[batch])["engine"] for batch in batches}

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(worker, Settings()), log_config=None, access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def over_http(batch: int) -> Callable[[], None]:
        bodies = [body(replace(request, seed=0)) for request in batches[batch]]
        return lambda: asyncio.run(streamed(listener.getsockname()[1], bodies))

    print(f"{options.model}, {dtype}, answers of up to {options.new} tokens; microseconds a token\n")
    print("| batch | engine, before | after steered draws | ratio | engine | over HTTP | beside the engine |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for batch in batches:  # the server's thread rests while the engine is asked directly
        both = measured({"engine": direct(batch), "served": over_http(batch)}, tokens[batch])
        print(
            f"| {batch} | {before[batch]:.0f} | {after[batch]:.0f} | {after[batch] / before[batch]:.3f} "
            f"| {both['engine']:.0f} | {both['served']:.0f} | {both['served'] - both['engine']:+.0f} |"
        )
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
