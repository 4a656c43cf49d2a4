"""Replicas as Ray actors: on this machine, or on the cluster at an address.

Ray starts actors, notices their end, starts them again, here or on another machine, and carries calls. Its messages are pickled, so
whoever reaches its ports may run programs: a Ray that is started here listens on loopback, under a token that only its own processes know,
and keeps its files in a folder of this user's. Of a cluster that is there already, whoever runs it decides.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spoutnik.checkpoint.load import open_tokenizer
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.errors import UserError
from spoutnik.recipe.tables import Price
from spoutnik.run.machine import cores
from spoutnik.serve.backend import Cost, Shape
from spoutnik.serve.errors import ApiError
from spoutnik.serve.logs import log_to_stderr
from spoutnik.serve.opening import Opening
from spoutnik.serve.replica import Hello, Letter, LostError, Replica
from spoutnik.serve.replicas import Replicas

OBJECT_STORE_BYTES = 80 << 20
"""For large objects, of which there are none here; Ray takes no less than 75 MiB."""
CLOSING_S = 5.0
REACH_S = 5.0
CALLS = 10_000
"""Calls that may be under way at a replica."""


def open_replicas(opening: Opening, price: Price, count: int, address: str | None, say: Callable[[str], None]) -> Replicas:
    """`count` replicas of a model as Ray actors, each with an equal share of the cores. Without an `address` Ray is started here, and ended
    with them. Raises UserError where Ray is missing or cannot be reached, and where a replica cannot open the model.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("Replicas need Ray, which is not installed; run: pip install 'spoutnik[cluster]'.")
    say("reading the tokenizer")
    tokenizer = open_tokenizer(opening.model)
    say("starting Ray" if address is None else f"joining the Ray cluster at {address}")
    end = _start() if address is None else _join(address)
    try:
        import ray

        kind: Any = ray.remote(ReplicaActor)
        settings: dict[str, Any] = {
            "num_cpus": _share(count), "max_restarts": -1, "max_concurrency": CALLS, "scheduling_strategy": "SPREAD"
        }  # fmt: skip
        opening = _absolute(opening)
        actors = [kind.options(**settings).remote(opening, price) for _ in range(count)]
        say(f"reading and packing weights in {count} replicas")
        hellos = ray.get([actor.open.remote() for actor in actors])
        for hello in hellos:
            if isinstance(hello, str):
                raise UserError(hello)
        return Replicas([RayLink(actor) for actor in actors], hellos[0], tokenizer, end)
    except BaseException:
        end()
        raise


class ReplicaActor(Replica):
    """A replica that has its process to itself, whose logs hold no words of a prompt either."""

    def __init__(self, opening: Opening, price: Price):
        log_to_stderr()
        super().__init__(opening, price)


class RayLink:
    """A `Link` to a `ReplicaActor`."""

    def __init__(self, actor: Any):
        self._actor = actor

    async def open(self) -> Hello:
        hello = await self._call("open")
        if isinstance(hello, str):
            raise UserError(hello)
        return hello

    async def submit(self, life: str, job: int, requests: Sequence[Request], shape: Shape | None) -> ApiError | None:
        return await self._call("submit", life, job, requests, shape)

    async def drop(self, life: str, job: int) -> None:
        await self._call("drop", life, job)

    async def letter(self, life: str) -> Letter:
        return await self._call("letter", life)

    async def score(self, life: str, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost] | ApiError:
        return await self._call("score", life, given, top_logprobs)

    async def embed(self, life: str, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost] | ApiError:
        return await self._call("embed", life, prompts)

    async def kill(self) -> None:
        await asyncio.to_thread(_kill, self._actor, False)

    async def close(self) -> None:
        with contextlib.suppress(LostError, TimeoutError):
            await asyncio.wait_for(self._call("close"), CLOSING_S)
            await asyncio.wait_for(self._call("__ray_terminate__"), CLOSING_S)  # an orderly end, which writes what is to be kept
        await asyncio.to_thread(_kill, self._actor, True)

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Raises LostError for whatever keeps the answer from coming, and ends the call where nobody waits for it any more."""
        import ray

        call = getattr(self._actor, method).remote(*arguments)
        try:
            return await call
        except ray.exceptions.RayError as error:
            raise LostError(str(error)) from error
        except asyncio.CancelledError:
            ray.cancel(call)
            raise


def _start() -> Callable[[], None]:
    """Starts Ray here; returns what ends it."""
    folder = tempfile.mkdtemp(prefix="spoutnik-ray-")
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens at this machine's address for others, not on loopback
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_enable_metrics_collection": "0",
    }  # fmt: skip

    def end() -> None:
        import ray

        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        here = {"address": "local", "num_cpus": cores(), "num_gpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
        _init({**here, "include_dashboard": False})
    except BaseException:
        end()
        raise
    return end


def _join(address: str) -> Callable[[], None]:
    """Connects to a cluster; returns what ends the connection."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), REACH_S).close()  # Ray itself tries for minutes
        _init({"address": address})
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"No Ray cluster can be joined at {address!r} ({reason}); give HOST:PORT of one that ray start --head began, or auto."
        ) from error
    return ray.shutdown


def _init(settings: Mapping[str, Any]) -> None:
    import ray

    ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)


def _share(count: int) -> float:
    """Cores for each of `count` replicas, so that all machines' are shared evenly. Ray tells torch to use so many threads."""
    import ray

    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    able = [cpus for cpus in nodes if cpus > 0] or [1.0]
    each = min(able) / -(-count // len(able))
    return float(int(each)) if each >= 1 else each


def _absolute(opening: Opening) -> Opening:
    """With paths that hold in other folders; machines of a cluster share their files."""
    model = str(Path(opening.model).expanduser().absolute()) if Path(opening.model).expanduser().exists() else opening.model
    adapters = {name: str(Path(folder).expanduser().absolute()) for name, folder in opening.adapters.items()}
    cache_dir = None if opening.cache_dir is None else str(Path(opening.cache_dir).expanduser().absolute())
    return replace(opening, model=model, adapters=adapters, cache_dir=cache_dir)


def _kill(actor: Any, for_good: bool) -> None:
    import ray

    with contextlib.suppress(ray.exceptions.RayError, ValueError):  # it is gone already
        ray.kill(actor, no_restart=for_good)
