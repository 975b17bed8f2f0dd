"""What well-known clients make of the lessons and of tests/vectors.json, computed; the wire lab shows it (`clients.json`).

python -m tests.support.clients     compute it anew, with the Chromium and the packages that are installed, and write the file

Each client gets the chunks as they are cut; it returns [type, data, last event ID] for each event, or raises.
"""

import asyncio
import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2

from handlers.page.lessons import FILE, lessons
from tests.support import reference
from tests.support.browser import browser
from tests.support.servers import serving

ROOT = Path(__file__).parents[2]
CLIENTS = FILE.with_name("clients.json")
VECTORS = json.loads((ROOT / "tests" / "vectors.json").read_text())["cases"]

Events = list[list[str]]
Client = Callable[[Sequence[bytes]], Events]


def body(case: dict[str, Any]) -> bytes:
    """The bytes of a vector."""
    return bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()


# -- the clients that run in Python


def standard(chunks: Sequence[bytes]) -> Events:
    return [list(event) for event in reference.parse(b"".join(chunks)).events]


def openai(chunks: Sequence[bytes]) -> Events:
    """The SDK's decoder, before it takes the data for JSON."""
    from openai._streaming import SSEDecoder

    found = SSEDecoder().iter_bytes(iter(chunks))
    return [[event.event or "message", event.data, event.id or ""] for event in found]


def splitlines(chunks: Sequence[bytes]) -> Events:
    """Lines as httpx's `iter_lines` cuts them, with str.splitlines(); the rest as the standard has it."""
    response = httpx2.Response(200, content=iter(chunks))
    return [list(event) for event in reference._interpret(list(response.iter_lines())).events]


def split_at_lf_lf(chunks: Sequence[bytes]) -> Events:
    """As many pages and tutorials do it: each chunk decoded by itself, split at LF LF, prefixes with their space cut off."""
    events, buffer = [], ""
    for chunk in chunks:
        *blocks, buffer = (buffer + codecs.decode(chunk, "utf-8", "replace")).split("\n\n")
        for block in blocks:
            fields: dict[str, list[str]] = {"event": [], "data": [], "id": []}
            for line in block.split("\n"):
                name, found, value = line.partition(": ")
                if found and name in fields:
                    fields[name].append(value)
            if fields["data"]:
                kind, last = (fields["event"] or ["message"])[-1], (fields["id"] or [""])[-1]
                events.append([kind, "\n".join(fields["data"]), last])
    return events


PARSERS: dict[str, Client] = {"standard": standard, "openai": openai, "splitlines": splitlines, "lf-lf": split_at_lf_lf}
TITLES = {
    "standard": "The standard",
    "chromium": "EventSource in Chromium",
    "openai": "The openai SDK",
    "splitlines": "Clients that use splitlines()",
    "lf-lf": "Clients that split at LF LF",
}


# -- Chromium


@asynccontextmanager
async def bodies(answers: Sequence[tuple[int, str, Sequence[tuple[float, bytes]]]]) -> Any:
    """A server of prepared answers, (status, type, [(pause, chunk)]), at /0, /1, …; an empty page at /."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"][1:]
        status, kind, chunks = answers[int(name)] if name.isdigit() else (200, "text/html", [(0, b"<title>.</title>")])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        for pause, chunk in chunks:
            await asyncio.sleep(pause)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


WATCH = """async ([path, types]) => new Promise((resolve) => {
  const events = [], source = new EventSource(path)
  const take = ({ type, data, lastEventId }) => events.push([type, data, lastEventId])
  for (const type of new Set(["message", ...types])) if (type !== "error") source.addEventListener(type, take)
  source.addEventListener("error", (event) => {
    if (event.data !== undefined) return take(event)
    const closed = source.readyState === EventSource.CLOSED
    source.close()
    resolve({ events, closed })
  })
})"""


async def chromium(answers: Sequence[tuple[int, str, Sequence[tuple[float, bytes]]]], types: Sequence[set[str]]) -> list[Any]:
    """What EventSource dispatches for each answer, {"events", "closed"}, until its body ends. types: to listen for."""
    async with bodies(answers) as url, browser() as page:
        await page.goto(url)
        places = asyncio.Semaphore(5)  # of the six connections that a browser opens to a host

        async def watch(number: int) -> Any:
            async with places:
                return await page.evaluate(WATCH, [f"{url}/{number}", sorted(types[number])])

        return await asyncio.gather(*map(watch, range(len(answers))))


# -- the table


def judged(client: Client, chunks: Sequence[bytes]) -> dict[str, Any]:
    try:
        return {"events": client(chunks)}
    except Exception as error:
        return {"error": type(error).__name__}


async def compute() -> dict[str, Any]:
    """The contents of clients.json; of a lesson, what a client does otherwise than the standard."""
    played = {name: (lesson.status, lesson.type, lesson.plays["*"]) for name, lesson in lessons().items()}
    vectors: list[tuple[int, str, list[tuple[float, bytes]]]] = [
        (200, "text/event-stream", [(0, body(case))]) for case in VECTORS
    ]
    types = [{"end", "price"}] * len(played) + [{event[0] for event in case["events"]} for case in VECTORS]
    seen = await chromium([*played.values(), *vectors], types)
    table: dict[str, Any] = {}
    for (name, (status, kind, play)), browsed in zip(played.items(), seen, strict=False):
        chunks = [chunk for _, chunk in play]
        refused = {"error": "not an event stream, closed for good"} if not kind.startswith("text/event-stream") else None
        row = {client: judged(parse, chunks) for client, parse in PARSERS.items()}
        row["standard"] = refused or row["standard"]
        row["chromium"] = refused if refused and browsed["closed"] else {"events": browsed["events"]}
        assert browsed["closed"] == bool(refused or status == 204)
        table[name] = {"standard": row["standard"]} | {client: row[client] for client in row if row[client] != row["standard"]}
    return {"clients": list(_clients(seen[len(played) :])), "vectors": len(VECTORS), "lessons": table}


def _clients(seen: Sequence[Any]) -> Iterator[dict[str, Any]]:
    expected = [{"events": case["events"]} for case in VECTORS]
    outcomes: dict[str, Iterable[Any]] = {
        name: [judged(parse, [body(case)]) for case in VECTORS] for name, parse in PARSERS.items()
    }
    outcomes["chromium"] = [{"events": one["events"]} for one in seen]
    for name, title in TITLES.items():
        right = sum(found == wanted for found, wanted in zip(outcomes[name], expected, strict=True))
        yield {"name": name, "title": title, "version": _version(name), "right": right}


def _version(name: str) -> str:
    if name == "chromium":
        from tests.support.browser import chromium_version

        return re.sub(r"[^0-9]*([0-9]+)\..*", r"\1", chromium_version(), flags=re.DOTALL)
    return version(name) if name == "openai" else f"httpx2 {version('httpx2')}" if name == "splitlines" else ""


def written(table: dict[str, Any]) -> str:
    """As it stands in the file: a line for each client and each lesson."""
    clients = ",\n  ".join(json.dumps(client, ensure_ascii=False) for client in table["clients"])
    rows = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table["lessons"].items())
    return f'{{"clients": [\n  {clients}],\n "vectors": {table["vectors"]},\n "lessons": {{\n  {rows}}}}}\n'


if __name__ == "__main__":
    CLIENTS.write_text(written(asyncio.run(compute())))
