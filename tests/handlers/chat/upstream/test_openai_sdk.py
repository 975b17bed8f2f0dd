"""The openai SDK as the sidecar's client, against a real server that fails in every way there is."""

import asyncio
import json
import time
from contextlib import aclosing
from typing import Any

import pytest

from handlers.chat.items import UpstreamFailed, Whole
from handlers.chat.upstream.failures import CODES
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from tests.support.chat import KEY, MESSAGES, chat, client_of
from tests.support.upstream import BREAK, DONE, HANG, Script, chunk, error_reply, event, finish, reply, serve, usage

BODY = {"model": "test", "messages": MESSAGES, "stream": True}


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


async def read(client: OpenAIUpstream, *, retry: bool = False) -> tuple[list[str], UpstreamFailed | None]:
    """The texts that came, and how it failed."""
    texts: list[str] = []
    try:
        async with aclosing(await client.open(BODY, retry=retry)) as completion:
            async for chunks in completion:
                texts += [chunk.text for chunk in chunks if chunk.text]
    except UpstreamFailed as failure:
        return texts, failure
    return texts, None


@pytest.mark.parametrize(("script", "code"), NOT_BEGUN.values(), ids=NOT_BEGUN.keys())
async def test_an_answer_that_does_not_begin(script: Script, code: str) -> None:
    async with serve(script) as upstream, client_of(upstream) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.open(BODY, retry=False)
        await upstream.wait_for(running=0)
    failure = caught.value
    assert failure.code == code
    assert failure.retryable is CODES[code][0]
    assert KEY not in str(failure)
    if script.status != 200:
        assert failure.said is not None
        assert failure.status == script.status
        assert failure.said.body == b"".join(map(_bytes, script.steps)).replace(KEY.encode(), b"***")
        assert str(script.status) in failure.message


def _bytes(step: Any) -> bytes:
    return step if isinstance(step, bytes) else b""


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


@pytest.mark.parametrize("script", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_that_is_whole(script: Script) -> None:
    async with serve(script) as upstream, client_of(upstream, timeout=0.1) as client:
        assert await read(client) == (["a"], None)
        await upstream.wait_for(running=0)


async def test_a_consumer_may_be_slower_than_the_timeout() -> None:
    go = asyncio.Event()
    async with serve(reply(chunk("a"), go, finish(), DONE)) as upstream, client_of(upstream, timeout=0.02) as client:
        completion = await client.open(BODY, retry=False)
        await anext(completion)
        await asyncio.sleep(0.05)
        go.set()
        assert [chunks async for chunks in completion]
        await completion.aclose()


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
        async with aclosing(await client.open(body, retry=False)):
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
        answer = await client.complete({"model": "test", "messages": MESSAGES, "n": 2})
        assert upstream.requests[0].body == {"model": "test", "messages": MESSAGES, "n": 2, "stream": False}
    headers = {"content-type": "application/json", "openai-version": "2"}
    assert answer == Whole(200, odd, headers)


@pytest.mark.parametrize(
    ("script", "code"), [NOT_BEGUN["429"], (reply(b"{", BREAK), "broken"), (reply(HANG), "first_token_timeout")]
)
async def test_an_answer_in_one_piece_that_fails(script: Script, code: str) -> None:
    async with serve(script) as upstream, client_of(upstream, first_token_timeout=0.1) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.complete(BODY | {"stream": False})
        await upstream.wait_for(running=0)
    assert caught.value.code == code


async def test_cancelling_an_answer_in_one_piece_closes_the_connection() -> None:
    async with serve(reply(HANG)) as upstream, client_of(upstream) as client:
        task = asyncio.create_task(client.complete(BODY | {"stream": False}))
        await upstream.wait_for(running=1)
        task.cancel()
        await upstream.wait_for(running=0)
        assert task.cancelled() or await asyncio.wait([task])


MODELS = {"object": "list", "data": [{"id": "first", "object": "model"}, {"id": "second", "object": "model"}]}


async def test_the_default_model_is_the_first_that_is_listed_and_asked_for_once() -> None:
    models = reply(json.dumps(MODELS).encode(), content_type="application/json")
    async with serve(models=models) as upstream, client_of(upstream, model="") as client:
        assert json.loads((await client.models()).body) == MODELS
        assert [await client.default_model() for _ in range(2)] == ["first", "first"]
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("models", [b'{"data": []}', b"[]", b"x", b'{"data": null}'])
async def test_without_any_model_the_request_has_to_name_one(models: bytes) -> None:
    async with serve(models=reply(models, content_type="text/plain")) as upstream, client_of(upstream, model="") as client:
        with pytest.raises(UpstreamFailed, match="name one") as caught:
            await client.default_model()
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("base_url", [None, "", "https://api.openai.com/v1"])
async def test_at_openai_itself_the_default_model_is_known(base_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if base_url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client = OpenAIUpstream()
    assert await client.default_model() == "gpt-4o-mini"
    await client.aclose()


async def test_a_large_answer_arrives_whole() -> None:
    script = reply(*[chunk("x" * 1000)] * 2000, finish(), usage(1, 2), DONE)
    async with chat(script) as c:
        answer = c.answer()
        async with aclosing(answer):
            count = len([item async for item in answer])
    assert len(answer.result["text"]) == 2_000_000
    assert count == 2004
