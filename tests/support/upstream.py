"""An OpenAI-compatible server on a real socket, that does exactly what a test scripts.

    async with serve(reply(chunk("Hi"), finish(), DONE)) as upstream:
        ...                       # upstream.url is a base URL for the openai SDK
        assert upstream.requests[0].body["model"] == "test"

Each request gets the next script, the last one again and again. A script is a list of steps: bytes are sent, HANG waits until
the client closes the connection, BREAK breaks it, an Event is waited for.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.asgi import read_body
from tests.support.servers import serving

DONE: Final = b"data: [DONE]\n\n"
HANG: Final = object()
BREAK: Final = object()

Step = bytes | asyncio.Event | object


@dataclass(frozen=True)
class Script:
    """One answer. headers: besides the content type."""

    steps: Sequence[Step] = ()
    status: int = 200
    content_type: str | None = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)


def reply(*steps: Step, **options: Any) -> Script:
    return Script(steps, **options)


def error_reply(status: int, error: Any, **headers: str) -> Script:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Script([json.dumps(error).encode()], status, "application/json", headers)


def event(value: Any) -> bytes:
    return b"data: %b\n\n" % _json(value)


def _json(value: Any) -> bytes:
    """As UTF-8; with surrogates that stand alone, which UTF-8 can't hold, as escapes."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def chunk_object(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "test"}
    return {**head, "choices": [choice], **fields}


def chunk(text: str, **fields: Any) -> bytes:
    return event(chunk_object({"content": text}, **fields))


def finish(reason: str = "stop", **fields: Any) -> bytes:
    return event(chunk_object({}, reason, **fields))


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({**chunk_object({}), "choices": [], "usage": counts})


def call(name: str, arguments: str, *, id: str | None = "call_1", index: int | None = 0) -> bytes:
    function = {"name": name, "arguments": arguments}
    return event(chunk_object({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))


# -- three answers: with reasoning and two tools of the sidecar's, with a tool of the client's, and one that ends

THINKS = event(chunk_object({"reasoning_content": "Let me see. "}))
TWO_TOOLS = reply(
    THINKS,
    chunk("I look. "),
    call("calculate", '{"expression": "6*7"}'),
    call("current_time", '{"timezone": "UTC"}', id="call_2", index=1),
    finish("tool_calls"),
    usage(1, 2),
    DONE,
)
ASKS = reply(call("colour", "{}", id="call_3"), finish("tool_calls"), usage(3, 4), DONE)
ENDS = reply(chunk("It is "), chunk("red."), finish(), usage(5, 6), DONE)


@dataclass(frozen=True)
class Request:
    """What came in. port: the client's. body: parsed, None if there was none."""

    port: int
    path: str
    headers: dict[str, str]
    body: Any


class Upstream:
    """requests: all of them. running: how many are being answered, counted where the connection ends."""

    def __init__(self, scripts: Sequence[Script], models: Sequence[Script]) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.running = 0
        self._scripts = list(scripts)
        self._models = list(models)
        self._changed = asyncio.Condition()

    async def wait_for(self, *, running: int) -> None:
        """Wait until so many requests are being answered."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self.running == running)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._count(1)
        try:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            body = await read_body(receive)
            self.requests.append(Request(scope["client"][1], scope["path"], headers, json.loads(body) if body else None))
            if scope["path"].endswith("/models"):
                script = _next(self._models) if self._models else error_reply(404, {"error": {"message": "no models here"}})
            else:
                script = _next(self._scripts)
            await _play(script, receive, send)
        finally:
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self._changed.notify_all()


def _next(scripts: list[Script]) -> Script:
    """The last one again and again."""
    return scripts.pop(0) if len(scripts) > 1 else scripts[0]


async def _play(script: Script, receive: Any, send: Any) -> None:
    headers = dict(script.headers)
    if script.content_type is not None:
        headers["content-type"] = script.content_type
    steps = list(script.steps)
    while steps and isinstance(steps[0], asyncio.Event):
        await _until(steps.pop(0), receive)
    if steps[:1] == [HANG]:
        await _disconnect(receive)
        return
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": script.status, "headers": raw})
    for step in steps:
        if step is HANG:
            await _disconnect(receive)
            return
        if step is BREAK:
            raise ConnectionError("scripted")
        if isinstance(step, bytes):
            await send({"type": "http.response.body", "body": step, "more_body": True})
        else:
            await _until(step, receive)
    await send({"type": "http.response.body", "body": b""})


async def _until(event: Any, receive: Any) -> None:
    """Wait for the event, or for the client to go."""
    waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(_disconnect(receive))}
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


async def _disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def serve(*scripts: Script, models: Script | Sequence[Script] = ()) -> AsyncIterator[Upstream]:
    """Serve the scripts on a free port of 127.0.0.1."""
    upstream = Upstream(scripts or [reply(HANG)], [models] if isinstance(models, Script) else models)
    async with serving(upstream, log_level="critical") as port:
        upstream.url = f"http://127.0.0.1:{port}/v1"
        yield upstream
