"""aiohttp-sse on aiohttp's own server with uvloop:  python -m bench.peers.aiohttp_sse PORT"""

import sys

import uvloop
from aiohttp import web
from aiohttp_sse import sse_response

from bench.peers.source import DONE, Hub, chunks

hub = Hub()


async def bench(request: web.Request) -> web.StreamResponse:
    async with sse_response(request, sep="\n") as answer:
        async for number, data in chunks(request.query):
            await answer.send(data.decode(), id=str(number))
        await answer.send(DONE)
    return answer


async def watch(request: web.Request) -> web.StreamResponse:
    async with sse_response(request, sep="\n") as answer:
        async for data in hub.watch():
            if data:
                await answer.send(data.decode())
            else:
                await answer.write(b":\n\n")
    return answer


async def publish(request: web.Request) -> web.Response:
    hub.publish(await request.read())
    return web.Response()


app = web.Application()
app.add_routes([web.get("/bench", bench), web.get("/watch", watch), web.post("/publish", publish)])

if __name__ == "__main__":
    web.run_app(
        app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=2048, loop=uvloop.new_event_loop()
    )
