"""deploy/compose-redis.yaml, without its engine: the processes that it names, with what it gives them, but for their ports.

The images of nginx and Redis are left out, and what only an engine does: networks, volumes, restarts.
"""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.nginx import CONFIGURATION, free_ports, nginx
from tests.support.redis import redis_server
from tests.support.servers import sidecar
from tests.support.sockets import Client, complaints, fetch

pytestmark = pytest.mark.e2e

COMPOSE = (Path(__file__).parents[2] / "deploy/compose-redis.yaml").read_text()
TOKEN = "a-token-that-nobody-guesses"


def environments() -> list[dict[str, str]]:
    """What the sidecars get; `${NAME:…}` is what the operator sets, and the token is all that one has to."""
    blocks = re.findall(r"^    environment:.*\n((?:      .*\n)+)", COMPOSE, re.MULTILINE)
    given = [dict(re.findall(r'^ +([A-Z_]+): "?([^"\n]+?)"?$', block, re.MULTILINE)) for block in blocks]
    first = {name: TOKEN if "SIDESTREAM_TOKEN" in value else "" if "$" in value else value for name, value in given[0].items()}
    return [first, *({**first, **other} for other in given[1:])]


def configuration() -> str:
    """nginx.conf as the head of the file has it changed."""
    match = re.search(r"sed 's/([^/]+)/([^/]+)/' nginx\.conf", COMPOSE)
    assert match is not None
    shipped = CONFIGURATION.read_text()
    assert match[1] in shipped
    return shipped.replace(match[1], match[2])


def redis_options() -> dict[str, str]:
    match = re.search(r"command: (\[.*\])", COMPOSE)
    assert match is not None
    program, *words = json.loads(match[1])
    assert program == "redis-server"
    return {name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_nginx_leads_to_the_ports_that_the_sidecars_have_and_they_to_redis() -> None:
    upstream = re.search(r"upstream sidestream \{(.*?)\n    \}", configuration(), re.DOTALL)
    assert upstream is not None
    servers = re.findall(r"^ +server ([^;]+);", upstream[1], re.MULTILINE)
    assert servers == [f"{each['SIDESTREAM_HOST']}:{each['SIDESTREAM_PORT']}" for each in environments()]
    assert {each["SIDESTREAM_STORE"] for each in environments()} == {f"redis://{redis_options()['bind']}:6379"}


async def test_what_is_started_inside_is_watched_from_outside_whichever_sidecar_has_it(tmp_path: Path) -> None:
    ports = free_ports(2)
    conf = configuration()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(tmp_path, **redis_options()))
        servers = []
        for port, given in zip(ports, environments(), strict=True):
            conf = conf.replace(f"127.0.0.1:{given['SIDESTREAM_PORT']}", f"127.0.0.1:{port}")
            given |= {"SIDESTREAM_PORT": str(port), "SIDESTREAM_STORE": redis.url, "SIDESTREAM_DEMO_INTERVAL": "0.02"}
            servers.append(await stack.enter_async_context(sidecar(**given)))
        proxy = await stack.enter_async_context(nginx(tmp_path, sidecar=ports[0], configuration=conf))
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "application/json"}

        async def start_and_watch(number: int) -> None:
            body = json.dumps({"prompt": f"Hello {number}"}).encode()
            status, answer = await fetch(proxy.private, "/chat", method="POST", headers=headers, body=body)
            assert status == 202, answer
            async with Client(proxy.http) as client:
                events = await (await client.get(json.loads(answer)["url"])).events()
            told = [event.last_event_id.rpartition(".")[2] for event in events]
            assert told == [*map(str, range(1, len(told))), "end"]
            assert events[-1].type == "done"

        await asyncio.gather(*map(start_and_watch, range(8)))
        assert (await fetch(proxy.http, "/chat", method="POST", headers=headers, body=b"{}"))[0] == 404
        for each in servers:
            served = [json.loads(line) for line in each.stderr if "sidestream.request" in line]
            assert {"POST", "GET"} <= {line["message"].split()[0] for line in served}, "nginx asks both"
            assert complaints(each.stderr) == []
