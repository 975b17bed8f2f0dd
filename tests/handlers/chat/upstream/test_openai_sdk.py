"""The openai SDK as the sidecar's client, against a real server that fails in every way there is."""

import asyncio
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from handlers.chat.formats.openai import OpenAI, passed_on
from handlers.chat.items import CODES, UpstreamFailed, Whole
from handlers.chat.upstream.body import MAX_WHOLE
from handlers.chat.upstream.failures import MAX_SAID
from handlers.chat.upstream.incoming import Incoming
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sse.budget import Budget, Charge
from sse.errors import Full
from tests.support.chat import KEY, MESSAGES, chat, client_of
from tests.support.proxy import proxy
from tests.support.upstream import BREAK, DONE, HANG, Script, chunk, error_reply, event, finish, reply, serve, usage

BODY = {"model": "test", "messages": MESSAGES, "stream": True}


@pytest.fixture(params=["our transport", "the SDK's, through a proxy"])
async def way(anyio_backend: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Both ways to the upstream: an answer comes, and fails, in the same way by either."""
    async with proxy() as it:
        if request.param != "our transport":
            monkeypatch.setenv("HTTP_PROXY", it.url)
        yield
        assert bool(it.connections) == (request.param != "our transport")


both_ways = pytest.mark.usefixtures("way")


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


NOT_BEGUN: dict[str, tuple[Script, str]] = {
    "401": (error_reply(401, error(f"wrong key {KEY}")), "refused"),
    "403": (error_reply(403, error("not you")), "refused"),
    "429": (error_reply(429, error("slow down"), retry_after="7"), "rate_limited"),
    "400": (error_reply(400, error("bad temperature")), "bad_request"),
    "400, about the model": (error_reply(400, error("no", code="model_not_found")), "model_not_found"),
    "422 in another shape": (error_reply(422, {"detail": "bad temperature"}), "bad_request"),
    "404 with an error object": (error_reply(404, error("no such model")), "model_not_found"),
    "404 of a server that knows no such path": (reply(b"<html>", status=404, content_type="text/html"), "bad_request"),
    "408": (error_reply(408, error("slow")), "upstream_down"),
    "500": (error_reply(500, error("oops")), "upstream_down"),
    "503 without a body": (reply(status=503, content_type=None), "upstream_down"),
    "529": (error_reply(529, error("overloaded")), "upstream_down"),
    "an answer of another type": (reply(b"{}", content_type="application/json"), "not_a_stream"),
    "an error of another type": (reply(b'{"error": "overloaded"}', content_type="application/json"), "upstream_error"),
    "a text": (reply(b"overloaded", content_type="text/plain"), "not_a_stream"),
    "no status of HTTP's": (error_reply(799, error("odd")), "upstream_down"),
    "html": (reply(b"<html></html>", content_type="text/html; charset=utf-8"), "not_a_stream"),
    "nothing, and says so": (reply(content_type="application/json", headers={"content-length": "0"}), "empty"),
}

BEGUN: dict[str, tuple[Script, str]] = {
    "nothing": (reply(), "empty"),
    "nothing, of no type": (reply(content_type=None), "empty"),
    "no event stream, of no type": (reply(b"hello", content_type=None), "not_a_stream"),
    "the middle": (reply(chunk("a")), "cut"),
    "broken": (reply(chunk("a"), BREAK), "broken"),
    "an error object": (reply(chunk("a"), event(error(f"overloaded {KEY}"))), "upstream_error"),
    "an error object, then nothing more": (reply(chunk("a"), event(error("overloaded")), HANG), "upstream_error"),
    "malformed json": (reply(chunk("a"), b"data: {\n\n", HANG), "bad_chunk"),
}


SAID = "The model is overloaded."
KEYS = [f"wrong key {KEY}", f"wrong key {KEY[:12]}…", f"wrong key …{KEY[-8:]}", f"{KEY}{KEY}"]


@pytest.mark.parametrize("said", KEYS)
async def test_the_upstreams_sentence_comes_through_and_the_key_does_not(said: str) -> None:
    async with serve(error_reply(401, error(f"{SAID} {said}"))) as upstream, client_of(upstream) as client:
        _, failure = await read(client)
    assert failure is not None
    assert failure.said is not None
    for told in (failure.message, failure.said.body.decode()):
        assert SAID in told
        assert KEY[:8] not in told
        assert KEY[-8:] not in told


async def opened(
    client: OpenAIUpstream, body: dict[str, Any] = BODY, *, retry: bool = False, claim: Callable[[int], None] = lambda _: None
) -> Incoming:
    return await client.open(body, retry=retry, headers={}, claim=claim)


async def in_one_piece(
    client: OpenAIUpstream, body: dict[str, Any] = BODY, claim: Callable[[int], None] = lambda _: None
) -> Whole | None:
    """The answer as it came, where no stream was asked for."""
    async with aclosing(await opened(client, body | {"stream": False}, claim=claim)) as incoming:
        assert [chunks async for chunks in incoming] == []
        return incoming.whole


async def read(
    client: OpenAIUpstream, *, retry: bool = False, body: dict[str, Any] = BODY
) -> tuple[list[str], UpstreamFailed | None]:
    """The texts that came, and how it failed."""
    texts: list[str] = []
    try:
        async with aclosing(await opened(client, body, retry=retry)) as completion:
            async for chunks in completion:
                texts += [chunk.text for chunk in chunks if chunk.text]
    except UpstreamFailed as failure:
        return texts, failure
    return texts, None


@both_ways
@pytest.mark.parametrize(("script", "code"), NOT_BEGUN.values(), ids=NOT_BEGUN.keys())
async def test_an_answer_that_does_not_begin(script: Script, code: str) -> None:
    async with serve(script) as upstream, client_of(upstream) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await opened(client)
        await upstream.wait_for(running=0)
    failure = caught.value
    assert failure.code == code
    assert failure.retryable is CODES[code][0]
    assert KEY not in str(failure)
    if script.status == 799:
        assert (failure.status, failure.said) == (502, None)
    elif script.status != 200:
        assert failure.said is not None
        assert failure.status == script.status
        assert failure.said.body == b"".join(map(_bytes, script.steps)).replace(KEY.encode(), b"***")
        assert str(script.status) in failure.message


def _bytes(step: Any) -> bytes:
    return step if isinstance(step, bytes) else b""


@both_ways
@pytest.mark.parametrize(("script", "code"), BEGUN.values(), ids=BEGUN.keys())
async def test_an_answer_that_breaks_off(script: Script, code: str) -> None:
    async with serve(script) as upstream, client_of(upstream) as client:
        texts, failure = await read(client)
        await upstream.wait_for(running=0)
    assert failure is not None
    assert failure.code == code
    assert KEY not in str(failure)
    assert texts == (["a"] if chunk("a") in script.steps else [])


async def test_what_an_upstream_says_about_a_limit_is_kept() -> None:
    async with serve(NOT_BEGUN["429"][0]) as upstream, client_of(upstream) as client:
        _, failure = await read(client)
    assert failure is not None
    assert failure.said is not None
    assert failure.said.headers["retry-after"] == "7"
    assert "content-length" not in failure.said.headers


@both_ways
async def test_an_upstream_that_is_not_there() -> None:
    async with serve() as upstream:
        pass
    async with client_of(upstream) as client:
        _, failure = await read(client)
    assert failure is not None
    assert failure.code == "upstream_down"


SLOW: dict[str, tuple[Script, str]] = {
    "before the headers": (reply(HANG), "first_token_timeout"),
    "after the headers": (reply(b"", HANG), "first_token_timeout"),
    "comments are no tokens": (reply(*[b": wait\n\n"] * 3, HANG), "first_token_timeout"),
    "between tokens": (reply(chunk("a"), HANG), "stalled"),
    "comments between tokens": (reply(chunk("a"), *[b": wait\n\n"] * 3, HANG), "stalled"),
}


@both_ways
@pytest.mark.parametrize(("script", "code"), SLOW.values(), ids=SLOW.keys())
async def test_an_upstream_that_falls_silent(script: Script, code: str) -> None:
    limits: dict[str, Any] = {"first_token_timeout": 0.1, "timeout": 60} if code == "first_token_timeout" else {"timeout": 0.1}
    async with serve(script) as upstream, client_of(upstream, **limits) as client:
        _, failure = await read(client)
        await upstream.wait_for(running=0)
    assert failure is not None
    assert failure.code == code


WHOLE = {
    "[DONE]": reply(chunk("a"), finish(), DONE),
    "no [DONE]": reply(chunk("a"), finish()),
    "no finish_reason": reply(chunk("a"), DONE),
    "broken after the end": reply(chunk("a"), finish(), BREAK),
    "silent after the end": reply(chunk("a"), finish(), HANG),
    "open after [DONE]": reply(chunk("a"), finish(), DONE, HANG),
    "no content type": reply(chunk("a"), finish(), DONE, content_type=None),
    "another charset": reply(chunk("a"), DONE, content_type="text/event-stream; charset=utf-8"),
}


@both_ways
@pytest.mark.parametrize("script", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_that_is_whole(script: Script) -> None:
    async with serve(script) as upstream, client_of(upstream, timeout=0.1) as client:
        assert await read(client) == (["a"], None)
        await upstream.wait_for(running=0)


async def test_a_consumer_may_be_slower_than_the_timeout() -> None:
    go = asyncio.Event()
    async with serve(reply(chunk("a"), go, finish(), DONE)) as upstream, client_of(upstream, timeout=0.02) as client:
        completion = await opened(client)
        await anext(completion)
        await asyncio.sleep(0.05)
        go.set()
        assert [chunks async for chunks in completion]
        await completion.aclose()


@both_ways
async def test_an_answer_read_to_its_end_leaves_the_connection_for_the_next() -> None:
    ports = set()
    async with serve(reply(chunk("a"), finish(), DONE)) as upstream, client_of(upstream) as client:
        for _ in range(3):
            await read(client)
            ports.add(upstream.requests[-1].port)
    assert len(ports) == 1


RETRIES = {
    "503": [error_reply(503, error("busy"), retry_after_ms="1"), reply(chunk("a"), DONE)],
    "429 with a short wait": [error_reply(429, error("busy"), retry_after="0.001"), reply(chunk("a"), DONE)],
}


@both_ways
@pytest.mark.parametrize("scripts", RETRIES.values(), ids=RETRIES.keys())
async def test_a_failure_that_may_pass_is_tried_again(scripts: list[Script]) -> None:
    async with serve(*scripts) as upstream, client_of(upstream) as client:
        assert await read(client, retry=True) == (["a"], None)
        assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "headers", [{"retry_after": "30"}, {"retry_after_ms": "2600"}, {"retry_after": "Wed, 21 Oct 2099 07:28:00 GMT"}]
)
async def test_a_wait_that_is_too_long_is_not_waited_for(headers: dict[str, str]) -> None:
    async with serve(error_reply(429, error("busy"), **headers)) as upstream, client_of(upstream) as client:
        began = time.monotonic()
        _, failure = await read(client, retry=True)
        assert time.monotonic() - began < 1
        assert len(upstream.requests) == 1
    assert failure is not None
    assert failure.code == "rate_limited"


async def test_v1_tries_once() -> None:
    async with serve(error_reply(503, error("busy"), retry_after_ms="1")) as upstream, client_of(upstream) as client:
        await read(client, retry=False)
        assert len(upstream.requests) == 1


@both_ways
async def test_the_request_arrives_as_it_was_given() -> None:
    body = {
        **BODY,
        "temperature": 0,
        "new": {"a": [1]},
        "stop": None,
        "tools": [{"type": "x"}],
        "messages": [{"role": "user", "x": 1}],
    }
    async with serve(reply(DONE)) as upstream, client_of(upstream) as client:
        async with aclosing(await opened(client, body)):
            pass
        [request] = upstream.requests
    assert request.body == body
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.path == "/v1/chat/completions"


async def test_an_upstream_that_needs_no_key() -> None:
    async with serve(reply(chunk("a"), DONE)) as upstream, client_of(upstream, key=None) as client:
        assert await read(client) == (["a"], None)


async def test_an_answer_in_one_piece_is_untouched() -> None:
    odd = b'{ "id" : "x",\n "choices": [ ] }\n'
    script = reply(odd, content_type="application/json", headers={"x-request-id": "r1", "x-other": "1", "openai-version": "2"})
    async with serve(script) as upstream, client_of(upstream) as client:
        answer = await in_one_piece(client, {"model": "test", "messages": MESSAGES, "n": 2})
        assert upstream.requests[0].body == {"model": "test", "messages": MESSAGES, "n": 2, "stream": False}
    headers = {"content-type": "application/json", "openai-version": "2"}
    assert answer == Whole(200, odd, headers)


@both_ways
@pytest.mark.parametrize(
    ("script", "code"), [NOT_BEGUN["429"], (reply(b"{", BREAK), "broken"), (reply(HANG), "first_token_timeout")]
)
async def test_an_answer_in_one_piece_that_fails(script: Script, code: str) -> None:
    async with serve(script) as upstream, client_of(upstream, first_token_timeout=0.1) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await in_one_piece(client)
        await upstream.wait_for(running=0)
    assert caught.value.code == code


@both_ways
async def test_cancelling_an_answer_in_one_piece_closes_the_connection() -> None:
    async with serve(reply(HANG)) as upstream, client_of(upstream) as client:
        task = asyncio.create_task(in_one_piece(client))
        await upstream.wait_for(running=1)
        task.cancel()
        await upstream.wait_for(running=0)
        assert task.cancelled() or await asyncio.wait([task])


# -- what comes in whole has a limit


@both_ways
@pytest.mark.parametrize("how", ["an error", "an answer", "the models", "no event stream"])
async def test_what_comes_in_whole_is_read_up_to_a_limit(how: str) -> None:
    """Whoever waits for the end of these waits in vain."""
    size = MAX_SAID if how == "an error" else MAX_WHOLE + 1
    endless = Script([b"x" * size, HANG], 500 if how == "an error" else 200, "text/plain")
    async with serve(endless, models=endless) as upstream, client_of(upstream) as client:
        with pytest.raises(UpstreamFailed) as caught:
            match how:
                case "an answer":
                    await in_one_piece(client)
                case "the models":
                    await client.models()
                case _:
                    await opened(client)
        await upstream.wait_for(running=0)
    assert caught.value.code == ("upstream_down" if how == "an error" else "not_a_stream")
    assert caught.value.said is None
    assert "xxx" in caught.value.message or "bytes" in caught.value.message


@both_ways
@pytest.mark.parametrize("how", ["an answer", "the models", "no event stream"])
async def test_what_comes_in_whole_is_charged_as_it_comes(how: str) -> None:
    """Where there is no room for more of it, the connection is given up."""
    room = Budget(1 << 20)
    claim = Charge(room).claim
    endless = Script([b"x" * (4 << 20), HANG], 200, "text/plain")
    async with serve(endless, models=endless) as upstream, client_of(upstream) as client:
        with pytest.raises(Full):
            match how:
                case "an answer":
                    await in_one_piece(client, claim=claim)
                case "the models":
                    await client.models(claim)
                case _:
                    await opened(client, claim=claim)
        await upstream.wait_for(running=0)


# -- an event stream, and an answer in one piece, in each other's place

BODY_OF_STREAM = chunk("a") + finish() + DONE
COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "text/html; charset=utf-8", "application/x-ndjson", ""]
)
@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"\n\n", b": wait\n\n", b"event: message\n", b"id: 1\n", b"retry: 1\n"]
)
async def test_what_looks_like_an_event_stream_is_read_as_one(content_type: str, before: bytes) -> None:
    async with serve(reply(before, BODY_OF_STREAM, content_type=content_type)) as upstream, client_of(upstream) as client:
        assert await read(client) == (["a"], None)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
async def test_an_answer_in_one_piece_is_streamed_where_a_stream_was_asked_for(content_type: str) -> None:
    whole = reply(json.dumps(COMPLETION, indent=1).encode(), content_type=content_type)
    async with serve(whole) as upstream, client_of(upstream) as client:
        assert await read(client) == (["a"], None)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_a_stream_is_put_together_where_one_piece_was_asked_for(content_type: str) -> None:
    async with chat(reply(BODY_OF_STREAM, content_type=content_type)) as c:
        answer = passed_on(await c.answer(format=OpenAI).whole())
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "a"
    assert answer.headers["content-type"] == "application/json"


@both_ways
async def test_a_type_that_is_wrong_does_not_hold_the_first_chunk_back() -> None:
    async with serve(reply(chunk("a"), HANG, content_type="text/plain")) as upstream, client_of(upstream) as client:
        incoming = await opened(client)
        assert [one.text for one in await anext(incoming)] == ["a"]
        await incoming.aclose()
        await upstream.wait_for(running=0)


# -- where a redirect leads


def redirect(location: str, status: int = 307) -> Script:
    return Script([b""], status, "text/html", {"location": location})


@both_ways
async def test_a_redirect_takes_the_prompt_to_no_other_host() -> None:
    async with serve(reply(chunk("a"), DONE)) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        async with serve(redirect(f"{elsewhere}/chat/completions")) as upstream, client_of(upstream) as client:
            _, failure = await read(client)
        assert other.requests == []
    assert failure is not None
    assert (failure.code, failure.status, failure.said) == ("not_a_stream", 502, None)
    assert "http://localhost" in failure.message


@pytest.mark.parametrize("location", ["http://[/", "//", "ftp://127.0.0.1/x"])
async def test_a_redirect_that_leads_nowhere(location: str) -> None:
    async with serve(redirect(location)) as upstream, client_of(upstream) as client:
        _, failure = await read(client)
    assert failure is not None
    assert failure.code in ("not_a_stream", "upstream_down")


@both_ways
async def test_a_redirect_on_the_same_host_is_followed() -> None:
    async with serve(redirect("/v1/chat/completions/"), reply(chunk("a"), DONE)) as upstream, client_of(upstream) as client:
        assert await read(client) == (["a"], None)
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions", "/v1/chat/completions/"]
    assert upstream.requests[1].body["messages"] == MESSAGES


# -- what goes up and what comes down besides


async def test_what_an_upstream_says_of_its_limits_comes_with_the_answer() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "7",
        "retry-after": "1",
        "openai-version": "2",
        "x-other": "1",
        "set-cookie": "a",
    }
    async with serve(reply(chunk("a"), DONE, headers=headers)) as upstream, client_of(upstream) as client:
        headers = {"traceparent": "00-1-2-01"}
        incoming = await client.open(BODY, retry=False, headers=headers, claim=lambda _: None)
        await incoming.aclose()
    assert incoming.limits == {"x-ratelimit-remaining-requests": "7", "retry-after": "1", "openai-version": "2"}
    assert upstream.requests[0].headers["traceparent"] == "00-1-2-01"


# -- the model where the request names none


def models(*ids: Any) -> Script:
    return reply(json.dumps({"object": "list", "data": [{"id": id} for id in ids]}).encode(), content_type="application/json")


NO_MODEL = error_reply(404, error("The model `first` does not exist"))
UNNAMED = {**BODY, "model": ""}


def asked(upstream: Any) -> list[str]:
    """The models that answers were asked of."""
    return [request.body["model"] for request in upstream.requests if request.body]


async def test_the_default_model_is_the_first_that_is_listed_and_asked_for_once() -> None:
    async with serve(models=models("first", "second")) as upstream, client_of(upstream, model="") as client:
        assert [await client.default_model() for _ in range(2)] == ["first", "first"]
        assert len(upstream.requests) == 1


async def test_the_default_model_is_asked_for_again_after_ten_minutes() -> None:
    times = iter(
        (0.0, 600.0, 600.1, 600.1, 1200.0)
    )  # the first, and each one that leads to a question, are looked at once more
    async with serve(models=models("first")) as upstream, client_of(upstream, model="", clock=lambda: next(times)) as client:
        for asked_so_far in (1, 1, 2, 2):
            await client.default_model()
            assert len(upstream.requests) == asked_so_far


@pytest.mark.parametrize("how", ["streamed", "in one piece"])
async def test_the_default_model_is_asked_for_again_when_the_upstream_does_not_know_it(how: str) -> None:
    whole = reply(json.dumps(COMPLETION).encode(), content_type="application/json")
    done = reply(chunk("a"), DONE) if how == "streamed" else whole
    async with (
        serve(NO_MODEL, done, models=[models("first"), models("second")]) as upstream,
        client_of(upstream, model="") as client,
    ):
        if how == "streamed":
            assert await read(client, body=UNNAMED) == (["a"], None)
        else:
            assert await in_one_piece(client, UNNAMED) is not None
        assert asked(upstream) == ["first", "second"]
        assert await client.default_model() == "second"


async def test_a_model_that_is_still_listed_is_not_asked_twice() -> None:
    async with serve(NO_MODEL, models=models("first")) as upstream, client_of(upstream, model="") as client:
        _, failure = await read(client, body=UNNAMED)
        assert asked(upstream) == ["first"]
    assert failure is not None
    assert failure.code == "model_not_found"


@pytest.mark.parametrize("named", ["the request", "the setting"])
async def test_a_model_that_was_chosen_is_not_exchanged(named: str) -> None:
    async with serve(NO_MODEL, models=models("second")) as upstream:
        async with client_of(upstream, model="" if named == "the request" else "first") as client:
            _, failure = await read(client, body={**BODY, "model": "first"} if named == "the request" else UNNAMED)
        assert asked(upstream) == ["first"]
    assert failure is not None


@pytest.mark.parametrize("base_url", [None, "", "https://api.openai.com/v1"])
async def test_at_openai_itself_the_default_model_is_known(base_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if base_url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client = OpenAIUpstream.from_environment()
    assert client is not None
    assert await client.default_model() == "gpt-4o-mini"


# -- the environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("key", [f" {KEY}\n", f"{KEY}\r\n"])
async def test_the_key_is_stripped(key: str) -> None:
    async with serve(reply(chunk("a"), DONE)) as upstream, client_of(upstream, key=key) as client:
        await read(client)
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_variables_that_are_empty_name_no_upstream(value: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", value)
    environment.setenv("OPENAI_BASE_URL", value)
    assert OpenAIUpstream.from_environment() is None


@pytest.mark.parametrize("key", ["sk-ü", "sk-\x07", "sk-a\nb"])
def test_a_key_that_can_not_be_sent_is_an_error_at_the_start(key: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as caught:
        OpenAIUpstream.from_environment()
    assert key not in str(caught.value)


URLS = [
    "localhost:8000/v1",
    "ftp://host/v1",
    "http://",
    "https:/host/v1",
    "http://host:port/v1",
    "http://host:99999",
    "http://ho st/v1",
    "http://[::1",
    "v1",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_can_not_be_asked_is_an_error_at_the_start(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL"):
        OpenAIUpstream.from_environment()


def test_a_password_in_a_url_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_BASE_URL", "ftp://me:secret@host/v1")
    with pytest.raises(ValueError, match="OPENAI_BASE_URL") as caught:
        OpenAIUpstream.from_environment()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "https://host", "http://[::1]:8000/v1/", "HTTP://HOST/v1", "http://me:x@host/v1"]
)
def test_a_url_that_can_be_asked(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_BASE_URL", f" {url} ")
    assert OpenAIUpstream.from_environment() is not None


SURROUNDINGS: dict[str, tuple[dict[str, str], str]] = {
    "a SOCKS proxy without its package": ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "socksio.*ALL_PROXY"),
    "a proxy that is no URL": ({"HTTPS_PROXY": "http://[::1"}, "HTTPS_PROXY"),
    "a proxy of an unknown kind": ({"HTTPS_PROXY": "gopher://me:secret@127.0.0.1:1"}, "HTTPS_PROXY"),
    "certificates that aren't there": ({"SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE=/nowhere.pem"),
}


@pytest.mark.parametrize(("variables", "named"), SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
async def test_what_the_sdk_can_not_do_with_the_environment_is_named(
    variables: dict[str, str], named: str, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("OPENAI_API_KEY", KEY)
    environment.setenv("OPENAI_BASE_URL", "https://upstream.example/v1")
    for name, value in variables.items():
        environment.setenv(name, value)
    client = OpenAIUpstream.from_environment()
    assert client is not None
    with pytest.raises(UpstreamFailed, match=named) as caught:
        await opened(client)
    assert caught.value.code == "upstream_down"
    await client.aclose()
    assert any(re.search(named, record.getMessage()) for record in caplog.records)
    assert not [record for record in caplog.records if record.exc_info]
    assert "secret" not in caplog.text + str(caught.value)


async def test_an_sdk_that_cant_be_loaded_keeps_nothing_of_who_waited_for_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SSL_CERT_FILE", "/nowhere.pem")
    budget, upstream = Budget(), OpenAIUpstream("https://upstream.example/v1", KEY)

    async def wait(_held: Charge) -> None:
        await upstream.default_model()

    with pytest.raises(UpstreamFailed, match=r"/nowhere\.pem"):
        charge = Charge(budget)
        charge.add(1)
        await wait(charge)
    del charge
    gc.collect()
    assert budget.used == 0
    await upstream.aclose()


@both_ways
async def test_a_large_answer_arrives_whole() -> None:
    script = reply(*[chunk("x" * 1000)] * 2000, finish(), usage(1, 2), DONE)
    async with chat(script) as c:
        answer = c.answer()
        async with aclosing(answer):
            count = len([item async for item in answer])
    assert len(answer.result["text"]) == 2_000_000
    assert count == 2004


async def test_what_comes_together_is_made_chunks_of_in_portions() -> None:
    """Thousands that live at once count as old, and have the garbage collector go through everything there is."""
    texts = [str(number) for number in range(3000)]
    async with serve(reply(b"".join(map(chunk, texts)), DONE)) as upstream, client_of(upstream) as client:
        incoming = await opened(client)
        portions = [chunks async for chunks in incoming]
        await incoming.aclose()
    assert [one.text for chunks in portions for one in chunks] == texts
    assert max(map(len, portions)) < 100
    assert sum(map(len, portions)) / len(portions) > 10


@pytest.mark.parametrize("size", [1, 2, 7, 4095, 4096, 4097, 1 << 20])
async def test_an_event_may_be_larger_than_a_portion(size: int) -> None:
    async with serve(reply(chunk("a") + chunk("x" * size) + chunk("b"), DONE)) as upstream, client_of(upstream) as client:
        assert await read(client) == (["a", "x" * size, "b"], None)


async def test_a_request_of_many_parts_is_sent_without_a_look_at_each() -> None:
    """The SDK looks at each part of a message: 16,000 of them held up the event loop for 2.5 s."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}] * 8}] * 500
    async with serve(reply(chunk("Hi"), finish(), DONE)) as upstream, client_of(upstream) as client:
        await (await opened(client)).aclose()  # what is loaded at first is loaded
        begin = time.thread_time()
        incoming = await opened(client, BODY | {"messages": messages})
        took = time.thread_time() - begin
        await incoming.aclose()
        assert upstream.requests[-1].body["messages"] == messages
    assert took < 0.2


async def test_a_type_that_no_header_can_say_is_not_passed_on() -> None:
    """It ended in a 500 of uvicorn's."""
    script = Script([b'{"error": {"message": "no"}}'], 429, "\u20acapplication/json".encode().decode("latin-1"))
    async with serve(script) as upstream, client_of(upstream) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await opened(client)
    assert caught.value.said is not None
    assert caught.value.said.headers == {"content-type": "application/json"}


LOADING = """
import asyncio, sys, threading
from handlers.chat.upstream.openai_sdk import OpenAIUpstream

class Noticing:
    def find_spec(self, name, path=None, target=None):
        if name in ("openai", "httpx2", "anyio"):
            in_loop.setdefault(name, threading.current_thread() is threading.main_thread())

async def main():
    upstream = OpenAIUpstream("http://127.0.0.1:1/v1")
    try:
        await upstream.open({"model": "m", "messages": []}, retry=False, headers={}, claim=lambda _: None)
    finally:
        await upstream.aclose()

in_loop = {}
sys.meta_path.insert(0, Noticing())
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, sorted(in_loop.items()))
"""


def test_what_is_loaded_with_the_sdk_is_imported_on_a_thread() -> None:
    """An answer that is asked for before that has begun held up the event loop for half a second."""
    run = subprocess.run([sys.executable, "-c", LOADING], check=True, timeout=60, capture_output=True, text=True)
    assert run.stdout.strip() == "UpstreamFailed [('anyio', False), ('httpx2', False), ('openai', False)]"
