"""`python app.py`: uvicorn with a drain, on a socket and connections of our own.

Server   on SIGTERM, SIGINT and SIGHUP it drains while the listener stays open, and then exits with 0 (uvicorn itself raises
         the signal again). While the process can open no more files, it logs that once a minute
main     reads the settings, opens the log and the socket, and serves. Exit status 2: a setting, the socket or the start of the
         application was refused; 3: the application crashed at its start
"""

import asyncio
import ctypes
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, Protocol, TextIO

import uvicorn

from sidecar import logs
from sidecar.connection import Connection
from sidecar.listener import BACKLOG, Acceptor, check_exposure, fit_watchers, listener
from sidecar.settings import Settings, from_environment, warn_of_unknown
from sse.asgi import Receive, Scope, Send

logger = logging.getLogger("sidestream")

FLUSH: Final = 2.0
"""Seconds that clients may take to receive the rest of their answers, after the streams have ended."""

REPEAT: Final = 60.0
"""Seconds between two log lines that say that no more files can be opened."""


LARGE_BLOCK: Final = 256 * 1024
"""Bytes of a block of memory that is given back to the system as soon as it is freed."""


COLLECT: Final = 10_000
"""Objects that are made before garbage is collected. Nothing here waits for that: streams, logs and connections are freed by
reference counting. While 1,000 streams open, there are 9 collections; with Python's own figure of 700 there are 147."""


class Application(Protocol):
    """The application, as far as the server needs it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def start(self) -> None:
        """Called in the event loop that serves it. Raises ValueError for a wrong setting."""

    def example(self, url: str) -> str:
        """A command that gets a first stream. url: where it is served."""

    async def drain(self) -> None:
        """Let the streams that run finish, and end those that take too long."""


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self._app = app
        self.refusal = ""  # why the application has refused to start
        self._drain: asyncio.Task[None] | None = None
        self._acceptor: Acceptor | None = None
        self._told = -REPEAT  # when it was last logged that no more files can be opened

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First signal: drain. A SIGINT after that: end at once.

        uvicorn would record the signal and raise it again at the end; then the exit status would be the signal's.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
            if self._drain is not None:
                self._drain.get_loop().call_soon_threadsafe(self._drain.cancel)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        try:
            self._app.start()  # before its lifespan would: uvicorn would report a refusal in lines of its own
        except ValueError as error:
            self.refusal, self.should_exit = str(error), True
            return
        if sockets and not isinstance(loop, asyncio.BaseEventLoop):  # asyncio's own loop accepts all that wait by itself
            self._acceptor = Acceptor(sockets[0], partial(Connection, self.config, self.server_state, self.lifespan.state))
        await super().startup(sockets)
        gc.freeze()  # what was imported stays
        gc.enable()  # app.py has switched it off for the imports
        gc.set_threshold(COLLECT)
        if self.started and not self.should_exit:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            url = f"http://{host}:{port}"
            logger.info("serving on %s - a first stream: %s", url, self._app.example(url))

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second. Once a second, try whether a file can be opened.

        Without free files uvloop closes new connections silently.
        """
        if counter % 10 == 0:
            try:
                os.close(os.dup(2))
            except OSError as error:
                self._failed(asyncio.get_running_loop(), {"exception": error})
        return await super().on_tick(counter)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's exception handler. Of "no more files", which asyncio reports at each accept, log one a minute."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif loop.time() - self._told >= REPEAT:
            self._told = loop.time()
            logger.error("no more files can be opened (%s): new connections are closed; see ulimit -n", error.strerror)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain with the listener open, so that resumes, probes and cancels are still answered. Then do what uvicorn does."""
        self._drain = asyncio.ensure_future(self._finish())
        if self.force_exit:  # it was set before there was a drain to cancel
            self._drain.cancel()
        await asyncio.wait((self._drain,))
        for connection in list(self.server_state.connections):
            if self.force_exit or (isinstance(connection, Connection) and connection.busy):
                connection.transport.abort()
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would skip this; it doesn't wait for streams
            await self.lifespan.shutdown()

    async def _finish(self) -> None:
        """Wait for the streams to finish, and then for their answers to be sent."""
        await self._app.drain()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=FLUSH)


def main(make: Callable[[Settings], Application]) -> int:
    """Serve the application that `make` makes from the settings, until a signal. Returns the exit status."""
    stderr = _standard_error()
    try:
        settings = from_environment()
        check_exposure(settings)
        logs.configure(settings.log_level, stderr)
        warn_of_unknown()
        settings = fit_watchers(settings)
        sock = listener(settings)
    except (ValueError, OSError) as error:
        print(f"sidestream: {error}", file=stderr)
        return 2
    return_memory()
    app = make(settings)
    server = Server(configuration(app, settings), app)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # raised by uvicorn when the application has failed to start
        return 3
    if server.refusal:
        print(f"sidestream: {server.refusal}", file=stderr)
        return 2
    if server.force_exit:
        return 128 + signal.SIGINT
    return 0 if server.started else 3


def _standard_error() -> TextIO:
    """stderr, or /dev/null. Closed standard files are opened, or a socket would get their numbers, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    return sys.stderr or open(2, "w", closefd=False)


def return_memory() -> None:
    """Have glibc give large blocks back to the system (mallopt(3)).

    Left alone, it raises the size from which it does so to that of the largest block so far: after a few large bodies the
    process keeps tens of megabytes. Other C libraries have neither this function nor this behaviour.
    """
    m_mmap_threshold = -3
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(m_mmap_threshold, LARGE_BLOCK)


def configuration(app: Application, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration. Its own loggers write warnings and errors only."""
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
        backlog=BACKLOG,
    )
