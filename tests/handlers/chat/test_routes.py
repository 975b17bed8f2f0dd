"""The chat routes, in process, in front of a real upstream: what goes in, what comes out, and what never starts."""

import json
import sys
import time
import types
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.chat import engine
from handlers.chat.items import CODES
from sidecar.functions import function
from sse.testing import open_stream
from tests.support.app import HOST, JSON, Answer, ask
from tests.support.chat import KEY, MESSAGES
from tests.support.chatting import V1, Sidecar, demo, named, sidecar
from tests.support.upstream import (
    BREAK,
    DONE,
    HANG,
    Script,
    call,
    chunk,
    chunk_object,
    error_reply,
    event,
    finish,
    reply,
    usage,
)

HELLO = reply(chunk("Hel"), chunk("lo"), finish(), usage(1, 2), DONE)
STREAMED = {"messages": MESSAGES, "stream": True}


@pytest.fixture(autouse=True)
def _no_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


# -- what comes out


async def test_typed_events_carry_the_upstreams_chunks() -> None:
    async with sidecar(HELLO) as s:
        answer = await s.post({"messages": MESSAGES})
    *chunks, done = named(answer)
    assert [name for name, _ in chunks] == ["chat_completion_chunk"] * 4
    assert [payload["chunk"] for _, payload in chunks] == [json.loads(step[6:]) for step in HELLO.steps[:4]]  # type: ignore[index]
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert done == ("done", {"stage_id": "1", "finish_reason": "stop", "usage": counts, "final": True})
    assert answer.last_event_id.endswith(".end")
    assert answer.headers["location"] == f"/streams/{answer.last_event_id.removesuffix('.end')}"


@pytest.mark.parametrize("how", ["GET", "POST"])
async def test_plain_events_carry_the_text(how: str) -> None:
    async with sidecar(HELLO) as s:
        if how == "GET":
            answer = await s.get("/chat?prompt=Hello&model=other")
        else:
            answer = await s.post({"prompt": "Hello", "model": "other", "format": "plain"})
        asked = s.upstream.requests[0].body
    (connected, _), *texts, done = named(answer)
    assert (connected, texts, done) == (
        "connected",
        [("message", {"content": t}) for t in ("Hel", "lo")],
        ("message", "[DONE]"),
    )
    assert (asked["model"], [m["role"] for m in asked["messages"]]) == ("other", ["system", "user"])


async def test_a_prompt_is_asked_with_the_system_message_and_what_is_unknown_is_passed_on() -> None:
    async with sidecar(HELLO, system="Be brief.") as s:
        await s.post({"prompt": "Hi", "temperature": 0.5, "seed": 7, "x": {"y": 1}})
        asked = s.upstream.requests[0].body
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert (asked["temperature"], asked["seed"], asked["x"], asked["model"]) == (0.5, 7, {"y": 1}, "test")


async def test_v1_passes_the_chunks_on_without_ids_and_without_usage_that_was_not_asked_for() -> None:
    async with sidecar(HELLO) as s:
        answer = await s.post(STREAMED, V1)
        with_usage = await s.post({**STREAMED, "stream_options": {"include_usage": True}}, V1)
    assert answer.body == b":\n" + b"".join(step for step in (*HELLO.steps[:3], DONE) if isinstance(step, bytes))
    assert with_usage.body == b":\n" + b"".join(step for step in HELLO.steps if isinstance(step, bytes))


async def test_v1_in_one_piece_is_the_upstreams_body_untouched() -> None:
    odd = b'{ "id": "x",\r\n "choices": [ ], "unknown": 1.50 }'
    headers = {"openai-processing-ms": "7", "set-cookie": "a=b"}
    async with sidecar(Script([odd], 200, "application/json", headers)) as s:
        answer = await s.post({"messages": MESSAGES}, V1)
    assert (answer.status, answer.body) == (200, odd)
    assert answer.headers["openai-processing-ms"] == "7"
    assert "set-cookie" not in answer.headers


async def test_v1_models_are_what_the_upstream_lists() -> None:
    listed = b'{"object":"list","data":[{"id":"first"},{"id":"second"}]}'
    async with sidecar(HELLO, models=Script([listed], 200, "application/json"), model="") as s:
        assert (await s.get("/v1/models")).body == listed
        await s.post({"prompt": "Hello"})
        assert s.upstream.requests[-1].body["model"] == "first"


@pytest.mark.parametrize("id", ["first", "org%2Fmodel"])
async def test_v1_knows_each_model_that_the_upstream_lists(id: str) -> None:
    listed = b'{"object":"list","data":[{"id":"first","object":"model","x":1},{"id":"org/model","object":"model","x":1}]}'
    async with sidecar(HELLO, models=Script([listed], 200, "application/json")) as s:
        answer = await s.get(f"/v1/models/{id}")
        missing = await s.get("/v1/models/second")
    assert (answer.status, answer.json) == (200, {"id": id.replace("%2F", "/"), "object": "model", "x": 1})
    assert (missing.status, missing.json["error"]["type"]) == (404, "invalid_request_error")
    assert "second" in missing.json["error"]["message"]


TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1"}


@pytest.mark.parametrize(("path", "body"), [("/chat", {}), (V1, {"stream": True}), (V1, {})])
async def test_a_trace_goes_on_upstream(path: str, body: dict[str, Any]) -> None:
    whole = reply(b'{"choices": []}', content_type="application/json")
    async with sidecar(HELLO if path == "/chat" or body else whole) as s:
        await s.post({"messages": MESSAGES, **body}, path, TRACE)
        sent = s.upstream.requests[0].headers
        assert {name: sent.get(name) for name in TRACE} == TRACE
        await s.post({"messages": MESSAGES, **body}, path, {"traceparent": "ü"})
        assert "traceparent" not in s.upstream.requests[1].headers


LIMITS = {"x-ratelimit-remaining-tokens": "7", "retry-after": "2", "openai-processing-ms": "5"}


@pytest.mark.parametrize("stream", [True, False])
async def test_v1_tells_of_the_upstreams_limits_streamed_or_not(stream: bool) -> None:
    whole = Script([b'{"choices": []}'], 200, "application/json", {**LIMITS, "x-other": "1"})
    streamed = Script(HELLO.steps, headers={**LIMITS, "x-other": "1"})
    async with sidecar(streamed if stream else whole) as s:
        answer = await s.post({"messages": MESSAGES, "stream": stream}, V1)
    assert {name: answer.headers.get(name) for name in LIMITS} == LIMITS
    assert "x-other" not in answer.headers


@pytest.mark.parametrize("path", ["/chat", V1])
async def test_a_usage_of_any_shape_stays_as_it_came(path: str) -> None:
    odd = {"prompt_tokens": "12", "completion_tokens": None, "details": [1, {"a": True}], "x": {"y": 1.5}}
    async with sidecar(reply(chunk("a"), finish(), event({"choices": [], "usage": odd}), DONE)) as s:
        answer = await s.post({**STREAMED, "stream_options": {"include_usage": True}}, path)
        states = [(await s.get(state["url"], JSON)).json for state in (await s.get("/streams")).json["streams"]]
    payload = named(answer)[-1 if path == "/chat" else -2][1]
    assert payload["usage"] == odd
    assert all(state["result"]["usage"] == odd for state in states)


async def test_without_an_upstream_the_demonstration_model_answers_and_says_so() -> None:
    app = demo()
    answer = await ask(app, "/chat", method="POST", json={"prompt": "calculate 6*7", "tools": ["calculate"]})
    events = named(answer)
    assert {payload["chunk"]["model"] for name, payload in events if name == "chat_completion_chunk"} == {"demo"}
    [summary] = [payload["tool_summary"]["calls"] for name, payload in events if name == "tool_summary"]
    assert (summary[0]["name"], summary[0]["ok"], summary[0]["result"]) == ("calculate", True, 42)
    assert (await ask(app, "/v1/models")).json["data"][0]["id"] == "demo"
    whole = (await ask(app, V1, method="POST", json={"messages": MESSAGES})).json
    assert whole["choices"][0]["message"]["content"] == "This is a mock response to: Hello"


async def test_empty_variables_are_no_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert (await ask(demo(), "/v1/models")).json["data"][0]["id"] == "demo"


# -- dialects, in every format

UNKNOWN = chunk_object({"content": "a"}, unknown={"kept": [1e3]})
HALVES = [chunk_object({"content": half}) for half in ("\ud83d", "\ude00")]
PRETTY = json.dumps(chunk_object({"content": "pretty"}), indent=1)
DIALECTS = [
    event(chunk_object({"role": "assistant", "content": None, "tool_calls": None})),
    event(UNKNOWN),
    *map(event, HALVES),
    b"".join(b"data: %b\n" % line.encode() for line in PRETTY.split("\n")) + b"\n",
    chunk("x" * (1 << 20)),
    event({**chunk_object({}), "choices": [{"index": 0, "delta": {"content": "."}}]}),
    finish(),
    event({**chunk_object({}), "choices": [{}], "usage": {"total_tokens": 3}}),
]
SAID = "a😀pretty" + "x" * (1 << 20) + "."


async def test_dialects_typed() -> None:
    async with sidecar(reply(*DIALECTS, DONE)) as s:
        *chunks, (name, done) = named(await s.post({"prompt": "Hello"}))
    assert [payload["chunk"] for _, payload in chunks[1:4]] == [
        chunk_object({"content": "a"}, unknown={"kept": [1e3]}),
        *HALVES,
    ]
    assert "".join(text(payload["chunk"]) for _, payload in chunks).encode("utf-16", "surrogatepass").decode("utf-16") == SAID
    assert (name, done["finish_reason"], done["usage"]) == ("done", "stop", {"total_tokens": 3})


async def test_dialects_plain() -> None:
    async with sidecar(reply(*DIALECTS, DONE)) as s:
        _, *texts, done = named(await s.post({"prompt": "Hello", "format": "plain"}))
    said = "".join(payload["content"] for _, payload in texts)
    assert said.encode("utf-16", "surrogatepass").decode("utf-16") == SAID
    assert done[1] == "[DONE]"


async def test_dialects_v1() -> None:
    async with sidecar(reply(*DIALECTS, DONE)) as s:
        *chunks, done = named(await s.post(STREAMED, V1))
    assert "".join(text(value) for _, value in chunks).encode("utf-16", "surrogatepass").decode("utf-16") == SAID
    assert done[1] == "[DONE]"
    assert chunks[-1][1]["choices"][0]["finish_reason"] == "stop"


def text(value: Mapping[str, Any]) -> str:
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in value["choices"])


@pytest.mark.parametrize("index", [0, None], ids=["every index 0", "no index"])
async def test_tool_calls_that_repeat_id_and_name_in_every_piece(index: int | None) -> None:
    pieces = [call("calculate", part, id=id, index=index) for id in "ab" for part in ('{"expression":', ' "6*7"}')]
    async with sidecar(reply(*pieces, finish("tool_calls"), DONE), HELLO) as s:
        answer = await s.post({"prompt": "Hello", "tools": ["calculate"]})
    [calls] = [payload["tool_summary"]["calls"] for name, payload in named(answer) if name == "tool_summary"]
    assert [(c["id"], c["arguments"], c["result"]) for c in calls] == [(id, {"expression": "6*7"}, 42) for id in "ab"]


# -- upstream truth, in every format


def failed(status: int, message: str, **fields: Any) -> Script:
    return error_reply(status, {"error": {"message": message, **fields}})


LONG = 100_000
"""Characters of an answer, in the tests that follow."""

FAILURES: dict[str, tuple[Script, dict[str, Any]]] = {
    "refused": (failed(401, f"wrong key {KEY}"), {}),
    "rate_limited": (error_reply(429, {"error": {"message": "slow down"}}, retry_after="7"), {}),
    "model_not_found": (failed(404, "no such model", code="model_not_found"), {}),
    "bad_request": (failed(400, "bad temperature"), {}),
    "upstream_down": (error_reply(503, {"error": {"message": "overloaded"}}, retry_after="7"), {}),
    "first_token_timeout": (reply(b": wait\n\n", HANG), {"first_token_timeout": 0.2}),
    "stalled": (reply(chunk("a"), HANG), {"upstream_timeout": 0.2}),
    "broken": (reply(chunk("a"), BREAK), {}),
    "upstream_error": (reply(chunk("a"), event({"error": {"message": f"overloaded {KEY}"}}), HANG), {}),
    "cut": (reply(chunk("a")), {}),
    "empty": (reply(), {}),
    "not_a_stream": (reply(b"<html>", content_type="text/html"), {}),
    "bad_chunk": (reply(chunk("a"), b"data: {\n\n", HANG), {}),
    "too_long": (reply(chunk("a"), chunk("b" * LONG), HANG), {}),
}
BEGUN = ("stalled", "broken", "upstream_error", "cut", "bad_chunk", "too_long")
"""Those in whose answer a chunk had arrived."""


def test_there_is_a_failure_for_every_code() -> None:
    assert FAILURES.keys() == CODES.keys()


@pytest.mark.parametrize("format", ["typed", "plain", "v1"])
@pytest.mark.parametrize("code", FAILURES)
async def test_a_failure_is_told_and_what_had_arrived_stays(code: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_ANSWER", LONG)
    script, settings = FAILURES[code]
    async with sidecar(script, **settings) as s:
        if format == "v1":
            answer = await s.post(STREAMED, V1)
        else:
            answer = await s.post({"prompt": "Hello", "format": format})
        await s.upstream.wait_for(running=0)
    assert KEY.encode() not in answer.body
    assert (b'"a"' in answer.body) == (code in BEGUN)
    assert b"[DONE]" not in answer.body
    if format == "v1":
        check_v1_failure(code, script, answer)
        return
    assert answer.status == 200
    name, payload = named(answer)[-1]
    assert (name, payload["code"]) == ("error", code)
    assert answer.last_event_id.endswith(".end")
    if format == "typed":
        assert (payload["stage_id"], payload["retryable"]) == ("1", CODES[code][0])


def check_v1_failure(code: str, script: Script, answer: Answer) -> None:
    """Before the stream began the upstream's own status and body; after that, an error object as the last event."""
    if script.status != 200:
        sent = b"".join(step for step in script.steps if isinstance(step, bytes)).replace(KEY.encode(), b"***")
        assert (answer.status, answer.body) == (script.status, sent)
        assert answer.headers.get("retry-after") == script.headers.get("retry-after")
    elif code == "not_a_stream":
        assert (answer.status, answer.json["error"]["code"]) == (502, code)
    else:
        assert answer.status == 200
        assert named(answer)[-1][1]["error"]["code"] == code


async def test_v1_in_one_piece_passes_an_error_on() -> None:
    async with sidecar(FAILURES["rate_limited"][0]) as s:
        answer = await s.post({"messages": MESSAGES}, V1)
        assert s.asked == 1
    assert (answer.status, answer.json, answer.headers["retry-after"]) == (429, {"error": {"message": "slow down"}}, "7")


# -- bad input

BAD: dict[str, tuple[Any, int, str | None]] = {
    "no object": ([], 400, None),
    "nothing to say": ({}, 422, "messages"),
    "both": ({"prompt": "x", "messages": MESSAGES}, 422, "messages"),
    "a message": ({"messages": [*MESSAGES, *MESSAGES, "Hello"]}, 422, "messages[2]"),
    "a content": ({"messages": [{"role": "user", "content": 1}]}, 422, "messages[0].content"),
    "an unknown tool": ({"prompt": "x", "tools": ["calculate", "nothing"]}, 422, "tools[1]"),
    "n": ({"prompt": "x", "n": 2}, 422, "n"),
    "format": ({"prompt": "x", "format": "xml"}, 422, "format"),
    "another route's format": ({"prompt": "x", "format": "openai"}, 422, "format"),
    "no format at all": ({"prompt": "x", "format": ["typed"]}, 422, "format"),
    "negative linger": ({"prompt": "x", "linger": -1}, 422, "linger"),
    "linger without end": ({"prompt": "x", "linger": 86401}, 422, "linger"),
    "too much metadata": ({"prompt": "x", "metadata": {"a": "x" * 1024}}, 422, "metadata"),
}


@pytest.mark.parametrize(("body", "status", "parameter"), BAD.values(), ids=BAD.keys())
async def test_bad_input_is_a_problem_that_names_the_field(body: Any, status: int, parameter: str | None) -> None:
    answer = await ask(demo(), "/chat", method="POST", json=body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json.get("parameter") == parameter
    assert parameter is None or parameter in answer.json["detail"]


@pytest.mark.parametrize("path", ["/chat", "/chat?prompt=", "/chat?model=x"])
async def test_get_needs_a_prompt(path: str) -> None:
    answer = await ask(demo(), path)
    assert (answer.status, answer.json["parameter"]) == (400, "prompt")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ([], 400, None),
        ({"prompt": "x"}, 422, "messages"),
        ({"messages": ["x"]}, 422, "messages[0]"),
        ({"messages": MESSAGES, "n": 2, "tools": ["calculate"]}, 422, "n"),
    ],
)
async def test_bad_input_to_v1_is_an_error_object(body: Any, status: int, param: str | None) -> None:
    answer = await ask(demo(), V1, method="POST", json=body)
    error = answer.json["error"]
    assert (answer.status, error["type"], error["param"], error["code"]) == (status, "invalid_request_error", param, None)


@pytest.mark.parametrize("path", ["/chat", V1])
async def test_a_body_has_to_say_that_it_is_json(path: str) -> None:
    """A form or a text that a page of another origin may send without asking first is not taken."""
    async with sidecar(HELLO) as s:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            body = json.dumps(STREAMED).encode()
            answer = await ask(s.app, path, method="POST", headers={"content-type": content_type}, body=body)
            assert answer.status == 415
        assert s.asked == 0


# -- who may

FOREIGN: dict[str, dict[str, str]] = {
    "another origin": {"origin": "https://evil.example"},
    "the same host, another port": {"origin": "http://127.0.0.1:3000"},
    "a sandboxed page": {"origin": "null"},
    "an image on another site": {"sec-fetch-site": "cross-site"},
    "an image on another port": {"sec-fetch-site": "same-site"},
    "a rebound name": {"host": "evil.example"},
    "a rebound name, its own origin": {
        "host": "evil.example",
        "origin": "http://evil.example",
        "sec-fetch-site": "same-origin",
    },
}
ALLOWED: dict[str, dict[str, str]] = {
    "a program": {},
    "our own page": {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
    "typed into the address bar": {"sec-fetch-site": "none"},
    "an origin that is allowed": {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
    "a host that is allowed": {"host": "sidecar.example", "origin": "https://sidecar.example"},
}
WAYS = ["GET /chat", "POST /chat", f"POST {V1}", "GET /v1/models"]


async def knock(s: Sidecar, way: str, headers: Mapping[str, str]) -> int:
    method, path = way.split(" ")
    body = {"messages": MESSAGES} if method == "POST" else None
    path = f"{path}?prompt=x" if way == "GET /chat" else path
    return (await ask(s.app, path, method=method, json=body, headers=headers)).status


async def test_a_page_from_elsewhere_starts_nothing() -> None:
    async with sidecar(HELLO, models=Script([b"{}"]), origins=("https://app.example",), hosts=("sidecar.example",)) as s:
        foreign = {(name, way): await knock(s, way, headers) for name, headers in FOREIGN.items() for way in WAYS}
        assert set(foreign.values()) == {403}, foreign
        assert s.asked == 0
        allowed = {(name, way): await knock(s, way, headers) for name, headers in ALLOWED.items() for way in WAYS}
        assert set(allowed.values()) == {200}, allowed
        assert s.asked == len(allowed)


async def test_without_the_token_nothing_starts() -> None:
    async with sidecar(HELLO, models=Script([b"{}"]), token=("secret",)) as s:
        assert {await knock(s, way, {}) for way in WAYS} == {401}
        assert {await knock(s, way, {"authorization": "Bearer wrong"}) for way in WAYS} == {401}
        assert s.asked == 0
        assert {await knock(s, way, {"authorization": "Bearer secret"}) for way in WAYS} == {200}


async def test_where_there_is_no_room_v1_says_so_and_asks_nobody() -> None:
    async with sidecar(HELLO, max_watchers=1) as s, open_stream(s.app, "/stream?interval=60", headers={"host": HOST}) as other:
        await other.next()
        answer = await s.post(STREAMED, V1)
        assert (answer.status, answer.json["error"]["type"]) == (503, "server_error")
        assert int(answer.headers["retry-after"]) > 0
        assert s.asked == 0


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/first"])
async def test_the_models_are_asked_for_in_a_place_of_their_own(path: str) -> None:
    async with sidecar(SLOW, models=HELLO, max_streams=1) as s, s.watching("/chat", {"messages": MESSAGES}) as client:
        await client.next()
        assert (await s.get(path)).status == 503
        assert s.asked == 1


async def test_a_body_that_is_nested_too_deep_is_refused_and_asks_nobody() -> None:
    async with sidecar(HELLO) as s:
        for levels, status in ((240, 200), (255, 400), (1023, 400), (100_000, 400)):
            body = b'{"messages":[{"role":"user","content":"x"}],"deep":%b%b}' % (b"[" * levels, b"]" * levels)
            for path in ("/chat", V1):
                began, asked = time.thread_time(), s.asked
                answer = await ask(s.app, path, method="POST", body=body, headers={"content-type": "application/json"})
                assert time.thread_time() - began < 1
                assert answer.status == status
                assert (s.asked > asked) == (levels == 240)


# -- a stream's life

SLOW = reply(chunk("Hel"), HANG)


async def test_a_reconnect_gets_the_rest_and_asks_nobody_again() -> None:
    async with sidecar(HELLO) as s:
        whole = await s.get("/chat?prompt=Hello")
        ids = [e.last_event_id for e in whole.events]
        for position, last in enumerate(ids[:-1]):
            again = await s.get("/chat?prompt=Hello", {"last-event-id": last, "accept": "text/event-stream"})
            assert [e.data for e in again.events] == [e.data for e in whole.events[position + 1 :]]
        assert (await s.get("/chat?prompt=Hello", {"last-event-id": ids[-1]})).status == 204
        assert (await s.get("/chat?prompt=Other", {"last-event-id": ids[1]})).status == 409
        assert s.asked == 1


async def test_the_same_post_with_a_last_event_id_resumes() -> None:
    """As clients for fetch do it, that send their request again; how the JSON is spaced makes no difference."""
    body = {"messages": MESSAGES, "tools": ["calculate"]}
    async with sidecar(HELLO) as s:
        whole = await s.post(body)
        second = whole.events[1].last_event_id
        spaced = json.dumps(body, indent=1).encode()
        headers = {"content-type": "application/json", "last-event-id": second, "accept": "text/event-stream"}
        again = await ask(s.app, "/chat", method="POST", headers=headers, body=spaced)
        assert [e.data for e in again.events] == [e.data for e in whole.events[2:]]
        assert (await s.post(body, headers={"last-event-id": whole.last_event_id})).status == 204
        assert (await s.post({"prompt": "Other"}, headers={"last-event-id": second})).status == 409
        assert s.asked == 1


async def test_a_key_makes_two_requests_one_answer() -> None:
    async with sidecar(HELLO) as s:
        first, second = [await s.post({"prompt": "Hello"}, headers={"idempotency-key": "k"}) for _ in range(2)]
        assert first.body == second.body
        assert (await s.post({"prompt": "Other"}, headers={"idempotency-key": "k"})).status == 422
        assert s.asked == 1


async def test_the_result_can_be_read_while_it_runs_and_afterwards() -> None:
    """A backend starts an answer and reads what came of it, without ever watching."""
    async with sidecar(SLOW) as s:
        started = await s.post({"prompt": "Hello", "linger": 60, "metadata": {"user": 7}}, headers=JSON)
        assert started.status == 202
        url, key = started.json["url"], started.json["key"]
        async with open_stream(s.app, url, headers={"host": HOST}) as watcher:
            assert (await watcher.next()).type == "chat_completion_chunk"
            running = (await s.get(url, JSON)).json
            assert (running["state"], running["metadata"]) == ("running", {"user": 7})
            assert running["result"]["text"] == "Hel"
            assert running["result"]["finish_reason"] is None
            assert (await ask(s.app, url, method="DELETE", headers={"stream-key": key})).status == 204
            assert (await watcher.next()).type == "cancel"
        await s.upstream.wait_for(running=0)
        ended = (await s.get(url, JSON)).json
    assert (ended["state"], ended["reason"], ended["result"]["text"]) == ("cancelled", "deleted", "Hel")


async def test_the_result_of_a_whole_answer() -> None:
    called = reply(chunk("Let me see. "), call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), usage(1, 2), DONE)
    async with sidecar(called, HELLO) as s:
        answer = await s.post({"prompt": "Hello", "tools": ["calculate"]})
        result = (await s.get(answer.headers["location"], JSON)).json["result"]
    assert (result["text"], result["finish_reason"], result["tool_calls"]) == ("Let me see. Hello", "stop", [])
    assert result["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert [stage["calls"][0]["result"] for stage in result["stages"] if stage["calls"]] == [42]


@pytest.mark.parametrize(("asked", "linger"), [({}, 30), ({"linger": 0}, 0), ({"linger": 600}, 600)])
async def test_a_request_says_how_long_it_may_go_on_unwatched(asked: dict[str, Any], linger: float) -> None:
    app = demo(linger=30.0)
    started = await ask(app, "/chat", method="POST", json={"prompt": "x", **asked}, headers=JSON)
    stream = app.service.store.streams.get(started.json["stream_id"])
    assert stream is not None
    assert stream.opening.linger == linger
    await app.stop()


async def test_a_v1_client_that_goes_between_tokens_cancels_whatever_the_linger() -> None:
    async with sidecar(SLOW, linger=60.0) as s:
        async with open_stream(s.app, V1, method="POST", json=STREAMED, headers={"host": HOST}) as client:
            await client.next()
        await s.upstream.wait_for(running=0)


@pytest.mark.parametrize("tools", [[], ["calculate"]])
async def test_v1_keeps_nothing_that_can_not_be_read(tools: list[str]) -> None:
    async with sidecar(SLOW, HELLO) as s:
        store = s.app.service.store
        async with s.watching(V1, {**STREAMED, "tools": tools}) as client:
            await client.next()
            assert (len(store.running), store.streams) == (1, {})
            assert (await s.get("/streams")).json["streams"] == []
            assert not {"location", "stream-key"} & {*client.headers}
        answer = await s.post({**STREAMED, "tools": tools}, V1)
        assert answer.body.endswith(b"[DONE]\n\n")
        assert (store.running, store.streams, store.budget.used) == ({}, {}, 0)


async def test_a_tool_that_ends_the_process_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tools_that_exit")

    @function
    def leave() -> None:
        raise SystemExit(3)

    module.leave = leave  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tools_that_exit", module)
    async with sidecar(reply(call("leave", "{}"), finish("tool_calls"), DONE), HELLO, tools=("tools_that_exit",)) as s:
        answer = await s.post({"messages": MESSAGES, "tools": ["leave"]})
        [summary] = [payload["tool_summary"] for name, payload in named(answer) if name == "tool_summary"]
        assert (summary["calls"][0]["ok"], named(answer)[-1][1]["final"]) == (False, True)
        assert "SystemExit" in summary["calls"][0]["error"]


# -- the start


async def test_ascii_without_anyascii_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyascii", None)
    with pytest.raises(ValueError, match=r"SIDESTREAM_ASCII=on .*anyascii"):
        demo(ascii=True).start()


async def test_ascii_transliterates_typed_and_plain_but_not_v1() -> None:
    async with sidecar(reply(chunk("Größe"), finish(), DONE), ascii=True) as s:
        typed = await s.post({"prompt": "Hello"})
        plain = await s.get("/chat?prompt=Hello")
        v1 = await s.post(STREAMED, V1)
    for written in (typed.body, plain.body):
        assert b"Grosse" in written
        assert written.isascii()
    assert "Größe".encode() in v1.body


@pytest.mark.parametrize("module", ["nowhere", "json"], ids=["missing", "without tools"])
async def test_a_module_without_tools_is_an_error_at_the_start(module: str) -> None:
    with pytest.raises(ValueError, match=rf"SIDESTREAM_TOOLS.*{module}"):
        demo(tools=(module,)).start()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "in one piece"])
async def test_while_draining_nothing_is_asked_of_the_upstream(stream: bool) -> None:
    async with sidecar(HELLO) as sidestream:
        sidestream.app.service.store.draining = True
        answer = await sidestream.post({"messages": MESSAGES, "stream": stream}, V1)
        assert (answer.status, answer.json["error"]["type"]) == (503, "server_error")
        assert sidestream.asked == 0
