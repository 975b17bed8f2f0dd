"""The seam: one class and one route make a new format of the chat, and nothing else of the project is touched."""

import json
from dataclasses import replace
from typing import Any

import pytest

from app import Features, Sidestream, routes
from handlers.chat.formats.base import ChatFormat
from handlers.chat.items import CallBegun, Chunk, Item, StageDone, ToolResult
from handlers.chat.request import Offer, parse_openai
from sidecar.access import Right
from sidecar.routes import Route
from sse.errors import Problem, SourceFailed
from sse.formats import Written
from sse.http import Response
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps
from tests.support.app import EVENT_STREAM, JSON
from tests.support.chatting import Sidecar, sidecar
from tests.support.upstream import DONE, HANG, call, chunk, error_reply, finish, reply, usage


class Telegraph(ChatFormat):
    """Texts in capitals, tools by name; STOP ends them. It asks with `{"say": …}` and is told of errors as a text."""

    name = "telegraph"
    headers = ((b"x-telegraph", b"1"),)

    def __init__(self, body: Any, offer: Offer) -> None:
        if "say" not in body:
            raise Problem(400, "there is nothing to say")
        asked = {"messages": [{"role": "user", "content": body["say"]}], "tools": body.get("tools"), "stream": True}
        self.request = replace(parse_openai(asked, offer), stream=body.get("stream", True))
        self.words = 0

    @classmethod
    def problem(cls, problem: Problem) -> Response:
        return Response(problem.status, problem.detail.upper().encode(), {"content-type": "text/plain"})

    def opening(self, stream_id: str) -> bytes | None:
        return None

    def item(self, item: Item) -> Written:
        match item:
            case Chunk() if item.text:
                self.words += 1
                return encode_json(dumps(item.text.upper()))
            case CallBegun():
                return encode_json(dumps(item.name), "call")
            case ToolResult():
                return encode_json(dumps(item.outcome.value), "result")
            case StageDone():  # two events, each with an id of its own
                return encode_json(dumps(item.finish_reason), "reason"), encode_json(dumps(item.usage), "usage")
        return b""

    def done(self) -> Written:
        return encode_json(dumps(self.words), "words"), encode_json(b'"STOP"')

    def failed(self, failure: SourceFailed) -> Written:
        return encode_json(dumps(failure.code), "broken")


class Wired(Telegraph):
    """The same for a client that can't resume: it waits for the upstream's status, and may ask for all in one piece."""

    name = "wired"
    ids = False
    after_status = True


class WithTelegraph(Sidestream):
    def routes(self, features: Features) -> tuple[Route, ...]:
        telegraph, wired = features.chat.answering(Telegraph), features.chat.answering(Wired)
        return (
            *routes(features),
            Route("POST", "/telegraph", telegraph, Right.TOKEN, errors=Telegraph.problem),
            Route("POST", "/wired", wired, Right.TOKEN, errors=Wired.problem),
        )


def with_telegraph(*scripts: Any, **settings: Any) -> Any:
    return sidecar(*scripts, application=WithTelegraph, **settings)


CALLED = reply(chunk("wait "), call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), usage(1, 2), DONE)
ANSWERED = reply(chunk("for"), chunk("ty"), finish(), DONE)


async def say(s: Sidecar, path: str = "/telegraph", **body: Any) -> Any:
    return await s.post({"say": "Hello", **body}, path, EVENT_STREAM)


async def test_its_own_request_its_items_its_headers_and_its_end() -> None:
    async with with_telegraph(CALLED, ANSWERED) as s:
        answer = await say(s, tools=["calculate"])
        assert s.upstream.requests[0].body["messages"] == [{"role": "user", "content": "Hello"}]
    assert answer.headers["x-telegraph"] == "1"
    assert [(event.type, json.loads(event.data)) for event in answer.events] == [
        ("message", "WAIT "),
        ("call", "calculate"),
        ("result", 42),
        ("reason", "tool_calls"),
        ("usage", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
        ("message", "FOR"),
        ("message", "TY"),
        ("reason", "stop"),
        ("usage", None),
        ("words", 3),
        ("message", "STOP"),
    ]


async def test_it_is_resumed_after_every_event() -> None:
    async with with_telegraph(ANSWERED) as s:
        whole = await say(s)
        ids = [event.last_event_id for event in whole.events]
        assert len(set(ids)) == len(ids)
        for position, last in enumerate(ids[:-1]):
            again = await s.post({"say": "Hello"}, "/telegraph", {**EVENT_STREAM, "last-event-id": last})
            assert [event.data for event in again.events] == [event.data for event in whole.events[position + 1 :]]
        assert len(s.upstream.requests) == 1


async def test_its_state_can_be_read_as_any_streams() -> None:
    async with with_telegraph(ANSWERED) as s:
        answer = await say(s)
        state = (await s.get(answer.headers["location"], JSON)).json
    assert (state["format"], state["state"], state["result"]["text"]) == ("telegraph", "done", "forty")


async def test_errors_look_as_it_says() -> None:
    async with with_telegraph(error_reply(503, {"error": {"message": "busy"}}, retry_after="60")) as s:
        missing = await s.post({"prompt": "Hello"}, "/telegraph")
        assert (missing.status, missing.body) == (400, b"THERE IS NOTHING TO SAY")
        refused = await say(s)
        assert [(event.type, event.data) for event in refused.events] == [("broken", '"upstream_down"')]
        with_status = await say(s, "/wired", stream=True)
        assert with_status.status == 503
        assert b"BUSY" in with_status.body


async def test_an_answer_in_one_piece() -> None:
    async with with_telegraph(CALLED, ANSWERED) as s:
        answer = (await say(s, "/wired", tools=["calculate"], stream=False)).json
    assert (answer["object"], answer["choices"][0]["message"]["content"]) == ("chat.completion", "wait forty")


@pytest.mark.parametrize(("path", "linger"), [("/telegraph", 30), ("/wired", 0)])
async def test_how_long_its_work_outlives_its_client(path: str, linger: float) -> None:
    async with with_telegraph(reply(chunk("a"), HANG)) as s, s.watching(path, {"say": "Hello", "stream": True}) as client:
        await client.next()
        [stream] = s.app.service.store.running.values()
        assert stream.opening.linger == linger
