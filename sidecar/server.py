"""`python app.py`: uvicorn, with what an event stream needs beyond it. The one place that knows the server.

Connection   hands event streams the means to abort a stalled client's transport (uvicorn would wait for its flush for
             ever), and closes connections on which a request was pipelined behind an open stream: uvicorn stops reading
             there, which hides the disconnect
Server       drains on SIGTERM and SIGINT while the listener stays open, and exits with 0 (uvicorn raises the signal again)
"""

import asyncio
import logging
import signal
import socket
import struct
import sys
from contextlib import suppress
from types import FrameType
from typing import Protocol

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from sidecar import logs
from sidecar.connection import BoundedHeads
from sidecar.listener import check_exposure, fit_watchers, listener
from sidecar.settings import Settings, from_environment
from sse.asgi import Receive, Scope, Send
from sse.watch import CONNECTION

logger = logging.getLogger("sidestream")

FLUSH = 2.0
"""Seconds that clients may take to receive the rest of their answers, after the streams have ended."""


class Connection(BoundedHeads):
    """One client connection."""

    _streaming = False
    _answering: RequestResponseCycle | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is incomplete."""
        return self._answering is not None and not self._answering.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"open": self._open, "abort": self._abort}}

    def _open(self) -> None:
        """An event stream begins."""
        self._streaming = True
        self._refuse_pipelined()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._refuse_pipelined()

    def on_response_complete(self) -> None:
        self._streaming = False
        super().on_response_complete()

    def _abort(self) -> None:
        """The client of the stream has stalled: don't wait for it to take what is buffered."""
        if self._answering is not None:
            self._answering.disconnected = True
        # Closed with RST: after FIN the kernel would keep what it holds for the client, which may be megabytes, for minutes
        with suppress(OSError, ValueError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells the newest request only, and the one that is answered may stand before it
        if self._answering is not None and self.busy:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _refuse_pipelined(self) -> None:
        # RFC 9112, 9.3.2: a client that pipelines has to expect the connection to close before all is answered
        if self._streaming and self.pipeline:
            self.transport.abort()


class Application(Protocol):
    """What the server needs of what it serves. settings: those that it starts with."""

    settings: Settings | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def drain(self) -> None:
        """Let what runs finish, and end what doesn't in time."""


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First signal: drain. A SIGINT after that: end at once. Not captured, so that the exit status is ours."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
            if self._drain is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._drain.cancel)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and not self.should_exit:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            logger.info("serving on http://%s:%d - a first stream: curl -N http://%s:%d/stream", host, port, host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain with the listener open: resumes, probes and cancels are still answered. Then what uvicorn does."""
        self._drain = asyncio.ensure_future(self._finish())
        if self.force_exit:  # before there was a drain to cancel
            self._drain.cancel()
        await asyncio.wait((self._drain,))
        for connection in list(self.server_state.connections):
            if self.force_exit or (isinstance(connection, Connection) and connection.busy):
                connection.transport.abort()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the application as it is; ending waits for nothing
            await self.lifespan.shutdown()

    async def _finish(self) -> None:
        """Let what runs finish, and every answer that it led to be sent."""
        await self._app.drain()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=FLUSH)


def main(app: Application) -> int:
    """Serve until told to stop; the exit status."""
    try:
        settings = from_environment()
        check_exposure(settings)
        logs.configure(settings.log_level)
        settings = app.settings = fit_watchers(settings)
        sock = listener(settings)
    except (ValueError, OSError) as error:
        print(f"sidestream: {error}", file=sys.stderr)
        return 2
    server = Server(configuration(app, settings), app)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's: the application has refused to start, as above, or failed
        return 2 if getattr(server.lifespan, "startup_failed", False) else 3
    if server.force_exit:
        return 128 + signal.SIGINT
    return 0 if server.started else 3


def configuration(app: Application, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves it; its own log lines are warnings and errors only."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        lifespan="on",
        root_path=settings.root_path,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=1,
    )
