"""The model's server: any that speaks OpenAI's chat completions, reached through the openai SDK. Nothing else imports that.

In:  the body of a request. Out: the answer as chunks, or whole and untouched, or an `UpstreamFailed`.

The SDK gives its client: credentials, base URL, proxies and certificates from the environment, its errors and its retries. Its
chunk objects cost ten times what reading the bytes does, so the bytes are read. Importing it takes half a second, on a thread.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from handlers.chat.items import Whole
from handlers.chat.upstream.failures import failed, from_answer
from handlers.chat.upstream.incoming import BROKEN, NOTHING_IN_TIME, Incoming
from handlers.chat.upstream.patience import Patience
from sidecar.logs import REQUEST_ID
from sse.threads import Threads

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncAPIResponse, AsyncOpenAI

RETRIES = 2
MAX_RETRY_AFTER = 2.5
"""Seconds that one retry may wait, 5 for both. Where the upstream asks for more, its failure is reported at once."""

_PASSED_ON: Final = ("content-type", "retry-after", "x-ratelimit-", "openai-")  # x-request-id is ours, and told upstream
_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"  # what the SDK sends to an upstream that needs none


@dataclass(frozen=True, slots=True)
class _SDK:
    """The SDK, loaded. key: never to be shown. broken: what reading a body raises when the connection breaks."""

    client: "AsyncOpenAI"
    retrying: "AsyncOpenAI"
    key: str
    broken: tuple[type[Exception], ...]

    def redacted(self, message: str) -> str:
        return message.replace(self.key, "***") if self.key else message


@dataclass
class OpenAIUpstream:
    """The server that OPENAI_BASE_URL and OPENAI_API_KEY name. model: the default one. Timeouts in seconds."""

    model: str = ""
    first_token_timeout: float = 300.0
    timeout: float = 120.0
    _loading: "asyncio.Task[_SDK] | None" = field(default=None, init=False, repr=False)

    def start(self) -> "asyncio.Task[_SDK]":
        """Begin to load the SDK, half a second in a thread, unless that has begun: the first chat waits less."""
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.create_task(_load())
        return self._loading

    async def aclose(self) -> None:
        if self._loading is not None:
            with suppress(Exception):  # it was never loaded
                await (await self._loading).client.close()

    async def default_model(self) -> str:
        """`model`, else gpt-4o-mini at OpenAI itself, else the first one that the upstream lists. Raises UpstreamFailed."""
        if not self.model:
            sdk = await self._sdk()
            self.model = "gpt-4o-mini" if sdk.client.base_url.host == "api.openai.com" else await self._first_model()
        return self.model

    async def open(self, body: Mapping[str, Any], *, retry: bool) -> Incoming:
        """Ask for a streamed answer; returns when its status is known. retry: the SDK's own retries, capped.

        Raises UpstreamFailed.
        """
        sdk = await self._sdk()
        deadline = asyncio.get_running_loop().time() + self.first_token_timeout
        async with _reported(sdk, deadline):
            response = await _create(sdk.retrying if retry else sdk.client, body)
        incoming = Incoming(response, Patience(deadline, self.timeout), sdk.broken, sdk.redacted)
        content_type = response.headers.get("content-type", "text/event-stream").lower()
        if not content_type.startswith("text/event-stream"):
            await incoming.aclose()
            if response.headers.get("content-length") == "0":
                raise failed("the upstream answered 200 with an empty body", "empty")
            raise failed(f"the upstream answered {content_type[:100]} instead of an event stream", "not_a_stream")
        return incoming

    async def complete(self, body: Mapping[str, Any]) -> Whole:
        """Ask for an answer in one piece. Raises UpstreamFailed."""
        sdk = await self._sdk()
        async with _reported(sdk, asyncio.get_running_loop().time() + self.first_token_timeout):
            response = await _create(sdk.client, body)
            try:
                return _whole(response.http_response, await response.read())
            finally:
                await response.close()

    async def models(self) -> Whole:
        """What the upstream lists. Raises UpstreamFailed."""
        sdk = await self._sdk()
        async with _reported(sdk, asyncio.get_running_loop().time() + self.first_token_timeout):
            response = (await sdk.client.models.with_raw_response.list()).http_response
            return _whole(response, response.content)

    async def _first_model(self) -> str:
        try:
            return str(orjson.loads((await self.models()).body)["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            raise failed("the upstream lists no model: the request has to name one", "model_not_found") from None

    async def _sdk(self) -> _SDK:
        try:
            return await asyncio.shield(self.start())  # others wait for it too
        except Exception as error:
            raise failed(f"the openai SDK can't be used: {type(error).__name__}", "upstream_down") from error


@asynccontextmanager
async def _reported(sdk: _SDK, deadline: float) -> AsyncIterator[None]:
    """What the SDK raises in here, or the end of the time, comes out as UpstreamFailed."""
    import openai

    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise failed(NOTHING_IN_TIME, "first_token_timeout") from None
    except openai.APIStatusError as error:
        raise from_answer(_whole(error.response, error.response.content, sdk.key)) from None
    except openai.APIConnectionError:
        raise failed("the upstream can't be reached", "upstream_down") from None
    except openai.OpenAIError as error:
        raise failed(sdk.redacted(f"the request can't be sent: {error}"), "bad_request") from None
    except sdk.broken:
        raise failed(BROKEN, "broken") from None


async def _create(client: "AsyncOpenAI", body: Mapping[str, Any]) -> "AsyncAPIResponse[Any]":
    """Send the request as it stands: what the SDK has no parameter for goes the same way as what it has."""
    rest: Any = {name: value for name, value in body.items() if name not in ("model", "messages", "stream")}
    create: Any = client.chat.completions.with_streaming_response.create
    headers = {"x-request-id": REQUEST_ID.get()} if REQUEST_ID.get() else {}
    request = create(
        model=body["model"], messages=body["messages"], stream=body.get("stream", False), extra_body=rest, extra_headers=headers
    )
    return await request.__aenter__()  # type: ignore[no-any-return]  # closed by whoever gets the response


def _whole(response: "httpx2.Response", body: bytes, key: str = "") -> Whole:
    headers = {name: value for name, value in response.headers.items() if name.startswith(_PASSED_ON) and value.isascii()}
    return Whole(response.status_code, body.replace(key.encode(), b"***") if key else body, headers)


async def _load() -> _SDK:
    sdk: _SDK = await Threads(threads=1, queue=0).run(_import).result()
    return sdk


def _import() -> _SDK:
    import anyio
    import httpx2
    import openai

    key = os.environ.get("OPENAI_API_KEY")
    client = openai.AsyncOpenAI(
        api_key=key or _NO_KEY,
        base_url=os.environ.get("OPENAI_BASE_URL") or _OPENAI,  # the SDK would take an empty one as it is
        timeout=openai.Timeout(None, connect=5.0),  # the other limits are ours
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_cap_retry]}),
    )
    client.chat.completions, client.models  # noqa: B018  # the SDK imports most of itself only when it is needed
    broken = (httpx2.RequestError, OSError, anyio.EndOfStream)
    return _SDK(client, client.with_options(max_retries=RETRIES), key or "", broken)


async def _cap_retry(response: "httpx2.Response") -> None:
    """Tell the SDK not to retry where the upstream wants it to wait for longer than we do."""
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := response.headers.get(header)) is not None:
            try:
                wait = float(value) * unit
            except ValueError:  # a date
                wait = MAX_RETRY_AFTER + 1
            if wait > MAX_RETRY_AFTER:
                response.headers["x-should-retry"] = "false"
