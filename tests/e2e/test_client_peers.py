"""EventSource against servers that others wrote: sse-starlette on uvicorn, and Node's own http module."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sse.client import EventSource, ReadyState, write_lines
from sse.wire.event import MessageEvent
from tests.support.require import require
from tests.support.servers import serving

LAST = 20


def no_jitter(failures: int) -> float:
    return 0.0


async def five_of(source: EventSource) -> AsyncIterator[MessageEvent]:
    async for event in source:
        yield event
        if event.last_event_id == "5":
            return


@asynccontextmanager
async def starlette_server() -> AsyncIterator[str]:
    """Numbers up to LAST, four a connection, each second connection cut in the middle; 204 after the last."""
    connections = 0

    async def numbers(after: int, cut: bool) -> AsyncIterator[dict[str, Any]]:
        for number in range(after + 1, min(after + 4, LAST) + 1):
            yield {"id": str(number), "event": "number", "data": json.dumps({"n": number}, indent=1), "retry": 10}
        if cut:
            raise ConnectionAbortedError("cut")

    async def stream(request: Request) -> Response:
        nonlocal connections
        connections += 1
        after = int(request.headers.get("last-event-id", 0))
        if after == LAST:
            return Response(status_code=204)
        return EventSourceResponse(numbers(after, connections % 2 == 0))

    async with serving(Starlette(routes=[Route("/", stream)])) as port:
        yield f"http://127.0.0.1:{port}/"


NODE = """
const last = 20, asked = [];
const server = require('http').createServer((request, response) => {
  if (request.url === '/asked') return response.end(JSON.stringify(asked));
  asked.push(request.method);
  const after = Number(request.headers['last-event-id'] || 0);
  if (after === last) { response.writeHead(204); return response.end(); }
  if (asked.length % 4 === 3) { response.writeHead(503, {'Retry-After': '0'}); return response.end(); }
  const head = {'Content-Type': 'text/event-stream; charset=utf-8'};
  if (request.method === 'POST') head.Location = '/streams/7';
  response.writeHead(200, head);
  response.write('\\ufeff: hello\\r\\nretry: 10\\r\\n\\r\\n');
  let number = after;
  const more = setInterval(() => {
    if (++number > Math.min(after + 4, last)) {
      clearInterval(more);
      if (asked.length % 2) return response.end();
      return response.write(`id: ${number}\\rdata: never`, () => request.socket.destroy());
    }
    response.write(`id: ${number}\\revent: number\\rdata: {\\rdata: "n": ${number}}\\r\\r`);
  }, 2);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


@asynccontextmanager
async def node_server() -> AsyncIterator[str]:
    """The same in Node, with CR as its line ends, a BOM, and 503 now and then; a POST names its stream's Location."""
    require("node")
    process = await asyncio.create_subprocess_exec("node", "-e", NODE, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 10))
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


SERVERS = pytest.mark.parametrize("serve", [starlette_server, node_server], ids=["sse-starlette", "node"])


@SERVERS
async def test_every_event_arrives_once_and_the_stream_ends(serve: Any) -> None:
    async with serve() as url, asyncio.timeout(30), EventSource(url, backoff=no_jitter) as source:
        events = [event async for event in source]
    assert [json.loads(event.data)["n"] for event in events] == list(range(1, LAST + 1))
    assert [event.last_event_id for event in events] == [str(number) for number in range(1, LAST + 1)]
    assert {event.type for event in events} == {"number"}
    assert source.ready_state is ReadyState.CLOSED


@SERVERS
async def test_a_file_is_continued_by_another_run(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    async with serve() as url, asyncio.timeout(30):
        with path.open("a") as file:
            async with EventSource(url, backoff=no_jitter) as source:
                await write_lines(five_of(source), file)
        last = json.loads(path.read_text().splitlines()[-1])["id"]
        with path.open("a") as file:
            async with EventSource(url, last_event_id=last, backoff=no_jitter) as source:
                await write_lines(source, file)
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert ids == [str(number) for number in range(1, LAST + 1)]


async def test_a_post_to_node_is_sent_once_and_resumed_by_get() -> None:
    async with node_server() as url, asyncio.timeout(30):
        async with EventSource(url, json={}, method="POST", backoff=no_jitter) as source:
            numbers = [json.loads(event.data)["n"] async for event in source]
        async with httpx2.AsyncClient() as client:
            asked = (await client.get(f"{url}asked")).json()
        assert (asked[0], set(asked[1:])) == ("POST", {"GET"})
        assert numbers == list(range(1, LAST + 1))
        assert source.url == f"{url}streams/7"
