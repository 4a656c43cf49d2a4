"""Listens at an address, and stops politely: what runs may end, what is new is sent away."""

import asyncio
import ipaddress
import logging
import socket
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from spoutnik.errors import UserError
from spoutnik.serve.connection import Connection
from spoutnik.serve.service import Service

LOOK_EVERY_S = 0.1
log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(
            f"The server cannot listen at {host} port {port} ({error.strerror or error}); choose another --port or --host."
        ) from error
    listener.set_inheritable(False)
    return listener


@dataclass(frozen=True)
class Tls:
    """A certificate with its chain, and its key; PEM files."""

    certificate: str
    key: str


def config(app: FastAPI, tls: Tls | None = None) -> uvicorn.Config:
    """uvicorn's settings. Raises UserError where certificate and key cannot be used."""
    found = uvicorn.Config(
        app, http=Connection, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1, server_header=False,
        date_header=False, ssl_certfile=tls.certificate if tls else None, ssl_keyfile=tls.key if tls else None,
    )  # fmt: skip
    try:
        found.load()
    except OSError as error:  # ssl.SSLError is one
        raise UserError(f"The certificate and its key cannot be used ({error}); give PEM files that belong together.") from error
    return found


class Server(uvicorn.Server):
    """On the first SIGTERM or SIGINT the service takes nothing new, and the server ends when what runs has ended, or after `drain_s`
    seconds. A second one ends it at once.
    """

    def __init__(self, app: FastAPI, tls: "Tls | None" = None):
        self._service: Service = app.state.service
        self._hurry = False
        super().__init__(config(app, tls))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self._hurry = True
            return
        self._service.draining = True
        asyncio.get_event_loop().call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain()))

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._service.settings.drain_s
        while self._service.active and loop.time() < end and not self._hurry:
            await asyncio.sleep(LOOK_EVERY_S)
        load = self._service.backend.load()
        fields = {"running": load.running, "waiting": load.waiting, "pages_used": load.pages.used}
        log.info("drained", extra={"fields": fields})
        await self._service.backend.close()  # tells what still runs that it ends
        self.should_exit = True
