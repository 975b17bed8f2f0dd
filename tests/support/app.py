"""The application under test: one request and its whole answer, in process; and routes that open streams of known content.

python -m tests.support.app     `python app.py` with these routes besides its own, for tests of a real process

GET, POST /numbers?count=&interval=&pad=&linger=&run=
                             a kept stream, opened as handlers do, through `answers.open`
GET /numbers/runs?closed=    {"opened": n, "closed": {run: monotonic seconds}}, once so many are closed
"""

import asyncio
import json as jsonlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from app import Features, Sidestream, routes
from sidecar import answers
from sidecar.access import Right
from sidecar.listener import listener
from sidecar.request import Reply, Request
from sidecar.routes import Route
from sidecar.server import Application, Server, configuration
from sidecar.service import Service
from sidecar.settings import Settings
from sse.asgi import ASGIApp
from sse.formats import Format
from sse.http import json_response
from sse.store import Backend
from sse.stream import Opening
from sse.testing import open_stream
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser

HOST = "127.0.0.1:8090"
NUMBERS = (sys.executable, "-m", "tests.support.app")
EVENT_STREAM = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}

ROUTES = routes(Features(Service(Settings())))
"""What is served."""


class Extended(Sidestream):
    """The application, and routes of a test's own besides its own."""

    def __init__(self, settings: Settings | None = None, *more: Route, backend: Backend | None = None) -> None:
        super().__init__(settings, backend)
        self._more = more

    def routes(self, features: Features) -> tuple[Route, ...]:
        return (*super().routes(features), *self._more)


@asynccontextmanager
async def serving(served: Application, settings: Settings) -> AsyncIterator[tuple[Server, int]]:
    """Our server in this process and loop, on a free port; it drains at the end."""
    sock = listener(replace(settings, port=0))
    server = Server(configuration(served, settings), served)
    serve = asyncio.ensure_future(server.serve([sock]))
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield server, sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serve


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def events(self) -> list[MessageEvent]:
        return Parser().feed(self.body)

    @property
    def last_event_id(self) -> str:
        parser = Parser()
        parser.feed(self.body)
        return parser.last_event_id


async def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    json: Any = None,
    timeout: float = 5.0,
) -> Answer:
    """One request to `app`, its answer read to the end. AssertionError if it isn't completed, or stands still."""
    sent = {"host": HOST, **(headers or {})}
    async with open_stream(app, path, method=method, headers=sent, body=body, json=json, timeout=timeout) as stream:
        async for _ in stream:
            pass
        assert stream.complete, "the answer was not completed"
        return Answer(stream.status, stream.headers, stream.raw)


class Runs:
    """What the sources of /numbers have done: how many were started, and when each was closed (monotonic, seconds)."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: dict[str, float] = {}
        self._one_closed = asyncio.Event()

    async def numbers(self, run: str, count: int, interval: float, pad: int) -> AsyncIterator[dict[str, Any]]:
        """`count` messages of several-byte text, `interval` seconds apart; without an interval they never wait."""
        self.opened += 1
        try:
            for number in range(1, count + 1):
                if interval and number > 1:
                    await asyncio.sleep(interval)
                yield {"n": number, "text": f"ü, я, 世, 😀 {number}"} | ({"pad": "x" * pad} if pad else {})
        finally:
            self.closed[run or str(len(self.closed))] = time.monotonic()
            self._one_closed.set()

    async def one_closed(self) -> None:
        """Wait until one more source is closed."""
        self._one_closed.clear()
        await self._one_closed.wait()

    async def open(self, request: Request) -> Reply:
        settings = request.service.settings
        count = request.integer("count", 10, minimum=0, maximum=10_000_000)
        interval = request.number("interval", 0.0, minimum=0, maximum=3600)
        pad = request.integer("pad", 0, minimum=0, maximum=1 << 20)
        linger = request.number("linger", settings.linger or 0, minimum=0, maximum=3600)
        run = request.query.get("run", "")
        body = await request.body() if request.method == "POST" else b""

        def propose(**facts: Any) -> Opening:
            source = self.numbers(run, count, interval, pad)
            return Opening(source, Format(), linger=linger, keep=settings.keep, **facts)

        return await answers.open(request, propose, body)

    async def show(self, request: Request) -> Reply:
        while len(self.closed) < request.integer("closed", 0, minimum=0, maximum=10_000_000):
            await self.one_closed()
        return json_response({"opened": self.opened, "closed": self.closed})

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/numbers", self.open, Right.TOKEN),
            Route("POST", "/numbers", self.open, Right.TOKEN),
            Route("GET", "/numbers/runs", self.show, Right.TOKEN),
        )


if __name__ == "__main__":
    from sidecar import server

    sys.exit(server.main(lambda settings: Extended(settings, *Runs().routes())))
