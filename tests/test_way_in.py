"""A request on its way in, followed through the running code: no module is entered twice on the routes that stand here.

The way in goes from `app` down through handlers/ and sidecar/, and ends where the handler has returned its reply. A module is
entered when a function of it is called by a function of another module, in the request's own task. Two kinds of calls lead back
up, and are not counted:

- from a lower floor into a higher one: `answers` has the handler make the stream that it has proposed
- whatever sse/ calls: a store tells of a stream's end, which is counted and logged

Modules of sse/ are not counted: a request, an event, a log are what all the others work with.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from app import Features, Sidestream
from sidecar import answers
from sidecar.request import Reply, Request
from sidecar.routes import Handler, Route
from sidecar.settings import Settings
from sse.http import Response
from sse.store import Backend
from sse.stream import Trigger
from tests.support.app import EVENT_STREAM, JSON, Answer, ask
from tests.support.backends import Slow
from tests.support.streams import open_in

ROOT = Path(__file__).parents[1]
FLOORS = ("sse", "sidecar", "handlers", "app")


def module_of(frame: FrameType) -> str:
    """The module whose function this is; empty if it isn't of the project."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(ROOT):
        return ""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if name.split(".")[0] in FLOORS else ""


def floor_of(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


class Way:
    """What was entered: (from, into), in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self._known: list[FrameType] = []  # a coroutine that goes on after a wait is no new call

    @property
    def entered(self) -> Counter[str]:
        return Counter(module for _, module in self.entries)

    @contextmanager
    def followed(self) -> Iterator[None]:
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)

    def end(self) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        module = module_of(frame)
        if event != "call" or not module or module.startswith("sse.") or any(frame is known for known in self._known):
            return
        self._known.append(frame)
        callers = list(self._callers(frame))
        if "app" not in callers or any(caller.startswith("sse.") for caller in callers):
            return  # of another task, or called back from the protocol
        if callers[0] != module and floor_of(callers[0]) >= floor_of(module):
            self.entries.append((callers[0], module))

    @staticmethod
    def _callers(frame: FrameType) -> Iterator[str]:
        """The modules of the functions that wait for this one, the nearest first; those of the test are seen through."""
        while (above := frame.f_back) is not None:
            if module := module_of(above):
                yield module
            frame = above


class Followed(Sidestream):
    """The application, in which a way ends where a handler has returned."""

    def __init__(self, settings: Settings, way: Way, backend: Backend | None = None) -> None:
        super().__init__(settings, backend)
        self._way = way

    def routes(self, features: Features) -> tuple[Route, ...]:
        return tuple(route._replace(handler=self._ending(route.handler)) for route in super().routes(features))

    def _ending(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Reply:
            try:
                return await handler(request)
            finally:
                self._way.end()

        return handle


async def follow(sidestream: Sidestream, way: Way, path: str, **request: Any) -> Answer:
    with way.followed():
        return await ask(sidestream, path, **request)


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
async def sidestream(way: Way) -> Sidestream:
    sidestream = Followed(Settings(token=("t",), demo_interval=0), way, Slow())
    sidestream.start()
    return sidestream


BEARER = {"authorization": "Bearer t"}
CHAT = {"prompt": "hello", "metadata": {"user": 1}}
BEGINNING = [("app", "sidecar.request"), ("app", "sidecar.logs"), ("app", "sidecar.routes"), ("app", "sidecar.access")]


@pytest.mark.parametrize("accept", [EVENT_STREAM, JSON], ids=["watched", "not watched"])
async def test_post_chat_enters_no_module_twice(sidestream: Sidestream, way: Way, accept: Mapping[str, str]) -> None:
    headers = {**BEARER, **accept, "idempotency-key": "k"}
    answer = await follow(sidestream, way, "/chat", method="POST", json=CHAT, headers=headers)

    assert answer.status in (200, 202)
    assert set(way.entered.values()) == {1}, way.entries
    assert way.entries[:5] == [*BEGINNING, ("app", "handlers.chat.routes")]
    assert {"sidecar.service", "sidecar.answers", "handlers.chat.request", "handlers.chat.engine"} <= set(way.entered)


async def test_get_chat_and_coming_back_to_it_enter_no_module_twice(sidestream: Sidestream, way: Way) -> None:
    path, headers = "/chat?prompt=hello", {**BEARER, **EVENT_STREAM}
    opened = await follow(sidestream, way, path, headers=headers)
    assert set(way.entered.values()) == {1}, way.entries

    way.entries.clear()
    last = opened.last_event_id.replace(".end", ".1")
    resumed = await follow(sidestream, way, path, headers={**headers, "last-event-id": last})
    assert resumed.last_event_id == opened.last_event_id
    assert set(way.entered.values()) == {1}, way.entries


async def test_a_resume_enters_no_module_twice(sidestream: Sidestream, way: Way) -> None:
    stream = open_in(sidestream.service.store)
    stream.emit(1)
    stream.end(Trigger.SOURCE_ENDED)
    headers = {**EVENT_STREAM, "last-event-id": f"{stream.id}.1"}
    answer = await follow(sidestream, way, f"/streams/{stream.id}", headers=headers)

    assert answer.last_event_id == f"{stream.id}.end"
    assert way.entries == [*BEGINNING, ("app", "handlers.streams"), ("handlers.streams", "sidecar.answers")]


async def test_a_cancel_enters_no_module_twice(sidestream: Sidestream, way: Way) -> None:
    stream = open_in(sidestream.service.store)
    answer = await follow(sidestream, way, f"/streams/{stream.id}", method="DELETE", headers={"stream-key": stream.key})

    assert (answer.status, stream.reason) == (204, "deleted")
    assert way.entries == [*BEGINNING, ("app", "handlers.streams"), ("handlers.streams", "sidecar.answers")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {**CHAT, "conversation": "one"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}], "stream": True}),
        ("/jobs", {"kind": "steps", "params": {"count": 1}}),
        ("/streams", {}),
    ],
)
async def test_what_opens_a_stream_enters_no_module_twice(
    sidestream: Sidestream, way: Way, path: str, body: dict[str, Any]
) -> None:
    # Not here: formats whose requests are looked at before and after they are turned into a chat, and an object's methods.
    answer = await follow(sidestream, way, path, method="POST", json=body, headers={**BEARER, **EVENT_STREAM})

    assert answer.status in (200, 201, 202)
    assert set(way.entered.values()) == {1}, way.entries


@pytest.mark.parametrize(
    "path",
    [
        "/stream?count=1",
        "/bench?events=1",
        "/streams",
        "/chat/formats",
        "/v1/models",
        "/lab/probe?count=1",
        "/lab/reconnect",
        "/page/page.css",
        "/healthz",
        "/readyz",
        "/",
    ],
)
async def test_a_get_enters_no_module_twice(sidestream: Sidestream, way: Way, path: str) -> None:
    answer = await follow(sidestream, way, path, headers={**BEARER, **EVENT_STREAM})

    assert answer.status == 200
    assert set(way.entered.values()) == {1}, way.entries


Opener = tuple[str, str, dict[str, Any]]
"""A path to post to, the member of the answer that holds the id, and a body."""

RESPOND: Opener = ("/v1/responses", "id", {"input": "hello", "background": True})
JOB: Opener = ("/jobs", "job_id", {"kind": "steps", "params": {"count": 1}})
PUBLISH: Opener = ("/streams", "stream_id", {})


@pytest.mark.parametrize(
    ("opening", "method", "path"),
    [
        (JOB, "GET", "/jobs/{id}"),
        (JOB, "GET", "/jobs/{id}/progress"),
        (JOB, "DELETE", "/jobs/{id}"),
        (PUBLISH, "POST", "/streams/{id}/close"),
        (PUBLISH, "DELETE", "/streams/{id}/watchers"),
        (PUBLISH, "GET", "/streams/{id}"),
        (RESPOND, "GET", "/v1/responses/{id}"),
        (RESPOND, "GET", "/v1/responses/{id}/input_items"),
        (RESPOND, "DELETE", "/v1/responses/{id}"),
    ],
)
async def test_what_is_asked_of_work_that_runs_enters_no_module_twice(
    sidestream: Sidestream, way: Way, opening: Opener, method: str, path: str
) -> None:
    # The cancel of a response isn't here: it reads the result before it and after it, and so enters `service` twice.
    opener, member, body = opening
    opened = await ask(sidestream, opener, method="POST", json=body, headers={**BEARER, **JSON})
    url = path.replace("{id}", opened.json[member])
    accept = JSON if path == "/streams/{id}" else EVENT_STREAM
    answer = await follow(sidestream, way, url, method=method, headers={**BEARER, **accept})

    assert answer.status in (200, 204)
    assert set(way.entered.values()) == {1}, way.entries


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ui/chat/one/stream"),
        ("POST", "/ui/chat/one/stop"),
        ("GET", "/conversations/one"),
        ("DELETE", "/conversations/one"),
    ],
)
async def test_what_is_asked_of_a_conversation_enters_no_module_twice(
    sidestream: Sidestream, way: Way, method: str, path: str
) -> None:
    headers = {**BEARER, **EVENT_STREAM}
    said = [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]
    await ask(sidestream, "/ui/chat", method="POST", json={"id": "one", "messages": said}, headers=headers)
    answer = await follow(sidestream, way, path, method=method, headers=headers)

    assert answer.status in (200, 204)
    assert set(way.entered.values()) == {1}, way.entries


async def test_a_module_that_is_entered_twice_would_be_seen(way: Way) -> None:
    async def twice(request: Request) -> Reply:
        answers.identify(request)
        answers.identify(request)
        return Response()

    class Winding(Followed):
        def routes(self, features: Features) -> tuple[Route, ...]:
            return tuple(route._replace(handler=twice) for route in super().routes(features))

    await follow(Winding(Settings(), way), way, "/healthz")
    assert way.entered["sidecar.answers"] == 2
