"""The server's half of ASGI, written by hand: one HTTP request (what `receive` says, how `send` behaves), and the lifespan."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from asgiref.testing import ApplicationCommunicator

from sse.asgi import ASGIApp, Message, Receive, Scope
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser


def http_scope(
    path: str = "/",
    *,
    method: str = "GET",
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    root_path: str = "",
    extensions: dict[str, Any] | None = None,
) -> Scope:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": root_path,
        "headers": list(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    return scope if extensions is None else {**scope, "extensions": extensions}


async def read_body(receive: Receive) -> bytes:
    """A request's whole body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def communicator(app: ASGIApp, scope: Scope) -> Any:
    """asgiref's own test client, which has no type hints."""
    return ApplicationCommunicator(app, scope)  # type: ignore[no-untyped-call]


class Connection:
    """`receive` and `send` for one request. body: the request's, one message for each piece.

    sent: the messages that the server took. calls: how many it was handed. raises: what `send` raises from now on.
    """

    def __init__(self, body: Iterable[bytes] = (b"",)) -> None:
        self.sent: list[Message] = []
        self.calls = 0
        self.raises: Exception | None = None
        self.gone = asyncio.Event()
        self._over = asyncio.Event()
        self.arrived: asyncio.Queue[None] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        pieces = list(body)
        self._requests = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)} for number, piece in enumerate(pieces, 1)
        ]

    async def receive(self) -> Message:
        if self._requests:
            return self._requests.pop(0)
        await self._over.wait()
        return {"type": "http.disconnect"}  # the client is gone, or the answer complete (asgiref specs/www.rst)

    async def send(self, message: Message) -> None:
        self.calls += 1
        await self._reading.wait()
        if self.raises is not None:
            raise self.raises
        if not self.gone.is_set():  # as uvicorn does: after the disconnect it returns silently
            self.sent.append(message)
            self.arrived.put_nowait(None)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._over.set()

    def disconnect(self) -> None:
        self.gone.set()
        self._over.set()

    @property
    def reading(self) -> bool:
        return self._reading.is_set()

    def stop_reading(self) -> None:
        """From now on `send` waits, as for a client whose window is full."""
        self._reading.clear()

    def go_on_reading(self) -> None:
        self._reading.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def bodies(self) -> list[bytes]:
        """The body messages' contents."""
        return [message["body"] for message in self.sent[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    @property
    def complete(self) -> bool:
        """Whether the last body message was sent, and nothing after it."""
        more = [message.get("more_body", False) for message in self.sent[1:]]
        return more[-1:] == [False] and all(more[:-1])

    @property
    def events(self) -> list[MessageEvent]:
        return Parser().feed(self.body)


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """The app's start-up before the block, its shutdown after it. RuntimeError with what it said if either fails."""
    asked, said = asyncio.Queue[Message](), asyncio.Queue[Message]()

    async def ask(step: str) -> None:
        asked.put_nowait({"type": f"lifespan.{step}"})
        answer = await asyncio.wait_for(said.get(), 5)
        if answer["type"] != f"lifespan.{step}.complete":
            raise RuntimeError(f"{step} failed: {answer.get('message')}")

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.ensure_future(app(scope, asked.get, said.put))
    running.add_done_callback(lambda _: said.put_nowait({"type": "ended"}))
    try:
        await ask("startup")
        yield
        await ask("shutdown")
    finally:
        running.cancel()
