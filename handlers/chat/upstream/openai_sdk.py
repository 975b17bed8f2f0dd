"""The model's server: any that speaks OpenAI's chat completions, reached through the openai SDK. Nothing else imports that.

In:  the body of a request. Out: the answer on its way (`incoming`), or an `UpstreamFailed`.

The SDK gives its client: proxies and certificates from the environment, its errors and its retries. Its chunk objects cost ten
times what reading the bytes does, so the bytes are read. Importing it takes half a second, on a thread.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from urllib.parse import urlsplit

from handlers.chat.items import UpstreamFailed, Whole
from handlers.chat.upstream import environment, models
from handlers.chat.upstream.body import MAX_WHOLE, Body
from handlers.chat.upstream.failures import from_answer
from handlers.chat.upstream.incoming import Incoming, answered
from handlers.chat.upstream.patience import Patience
from sidecar.logs import REQUEST_ID
from sse.errors import Full, describe
from sse.threads import Threads

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger("handlers.chat")

RETRIES: Final = 2

ASKED_AGAIN: Final = 600.0
"""Seconds after which the upstream is asked again what models it has."""

_NO_KEY: Final = "none"  # what the SDK sends to an upstream that needs none


class _SDK(NamedTuple):
    """The SDK, loaded. broken: what reading a body raises when the connection breaks."""

    client: "AsyncOpenAI"
    retrying: "AsyncOpenAI"
    broken: tuple[type[Exception], ...]


@dataclass
class OpenAIUpstream:
    """A server. key: "" if it needs none. model: the default one, "" if the server is to be asked. Timeouts in seconds."""

    name: ClassVar = "openai"

    base_url: str = environment.OPENAI
    key: str = field(default="", repr=False)
    model: str = ""
    first_token_timeout: float = 900.0
    timeout: float = 900.0
    clock: Callable[[], float] = time.monotonic
    _listed: tuple[str, float] = field(default=("", 0.0), init=False)  # the first model that can chat; when that was asked
    _loading: "asyncio.Task[_SDK] | None" = field(default=None, init=False, repr=False)

    @classmethod
    def from_environment(cls, **options: Any) -> "OpenAIUpstream | None":
        """The server that the environment names, if it names one. Raises ValueError for what can't be sent."""
        found = environment.server()
        return cls(*found, **options) if found else None

    @property
    def limit(self) -> str:
        """What it calls the most tokens of an answer. OpenAI's newer models refuse the old name, others don't know the new."""
        host = urlsplit(self.base_url).hostname or ""
        return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"

    def start(self) -> "asyncio.Task[_SDK]":
        """Begin to load the SDK, half a second in a thread, unless that has begun: the first chat waits less."""
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def aclose(self) -> None:
        if self._loading is not None:
            with suppress(UpstreamFailed):  # it was never loaded
                await (await self._loading).client.close()

    async def default_model(self) -> str:
        """`model`, else gpt-4o-mini at OpenAI itself, else the first listed one that can chat. Raises UpstreamFailed."""
        if self.model or urlsplit(self.base_url).hostname == "api.openai.com":
            return self.model or "gpt-4o-mini"
        model, asked = self._listed
        if not model or self.clock() - asked > ASKED_AGAIN:
            model = models.first((await self.models()).body)
            self._listed = model, self.clock()
        return model

    async def open(
        self, asked: Mapping[str, Any], *, retry: bool, headers: Mapping[str, str], claim: Callable[[int], None]
    ) -> Incoming:
        """Ask for an answer; returns when its status is known. asked: the body of the request.

        Where that names no model, the default one is asked; if the upstream doesn't know it, once more the next. retry: the
        SDK's own retries, capped. headers: sent too. claim: told the bytes of an answer that is no event stream. Raises
        UpstreamFailed.
        """
        ask = partial(self._ask, retry=retry, headers=headers, claim=claim)
        if asked["model"]:
            return await ask(asked)
        model = await self.default_model()
        try:
            return await ask({**asked, "model": model})
        except UpstreamFailed as failure:
            if failure.code != "model_not_found":
                raise
            self._listed = "", 0.0
            if (another := await self.default_model()) == model:
                raise
        return await ask({**asked, "model": another})

    async def models(self, claim: Callable[[int], None] = lambda _: None) -> Whole:
        """What the upstream lists. claim: told the bytes as they come. Raises UpstreamFailed."""
        sdk, body = await self._sdk(), bytearray()
        async with self._reported(self._deadline()):
            response = await sdk.client.models.with_streaming_response.list().__aenter__()
            try:
                async for data in response.iter_bytes():
                    claim(len(data))
                    body += data
                    if len(body) > MAX_WHOLE:
                        raise UpstreamFailed(f"the upstream's answer has over {MAX_WHOLE} bytes", "not_a_stream")
            finally:
                await response.close()
        return answered(response.http_response, bytes(body))

    async def _ask(
        self, asked: Mapping[str, Any], retry: bool, headers: Mapping[str, str], claim: Callable[[int], None]
    ) -> Incoming:
        """Send the request as it stands, messages too: the SDK would look through its own parameters for 0.2 ms a part."""
        sdk, deadline = await self._sdk(), self._deadline()
        rest: Any = {name: value for name, value in asked.items() if name not in ("model", "stream")}
        create: Any = (sdk.retrying if retry else sdk.client).chat.completions.with_streaming_response.create
        headers = {**headers, "x-request-id": request_id} if (request_id := REQUEST_ID.get()) else headers
        stream = asked.get("stream", False)
        async with self._reported(deadline):
            request = create(model=asked["model"], messages=(), stream=stream, extra_body=rest, extra_headers=headers)
            response = await request.__aenter__()  # closed by the Incoming
        body, patience = Body(several=(asked.get("n") or 1) > 1, one_piece=not stream), Patience(deadline, self.timeout)
        incoming = Incoming(response, body, patience, sdk.broken, self._failure, claim)
        if not response.headers.get("content-type", "text/event-stream").lower().startswith("text/event-stream"):
            await incoming.begin()  # it may be an event stream all the same, or say what is wrong
        return incoming

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.first_token_timeout

    async def _sdk(self) -> _SDK:
        try:
            return await asyncio.shield(self.start())  # others wait for it too
        except UpstreamFailed as failure:
            failure.__traceback__ = None  # the task keeps it, and that would keep who waits; since Python 3.12 the callers too
            raise UpstreamFailed(failure.message, failure.code) from None

    async def _load(self) -> _SDK:
        """Raises UpstreamFailed, which says what the SDK can't do with the environment."""
        try:
            sdk: _SDK = await Threads(threads=1, queue=0).run(self._import).result()
            return sdk
        except Exception as error:
            message = self._redacted(f"the openai SDK can't be used: {environment.explained(error)}")
            logger.error("%s", message)
            raise UpstreamFailed(message, "upstream_down") from None

    def _import(self) -> _SDK:
        import openai

        from handlers.chat.upstream import http_client

        client = openai.AsyncOpenAI(
            api_key=self.key or _NO_KEY,
            base_url=self.base_url,
            timeout=openai.Timeout(None, connect=5.0),  # the other limits are ours
            max_retries=0,
            http_client=http_client.create(self.base_url),
        )
        client.chat.completions, client.models  # noqa: B018  # the SDK imports most of itself only when it is needed
        gc.freeze()  # the SDK's 65,000 objects stay: a full collection, which holds up every stream, takes 90 ms less
        return _SDK(client, client.with_options(max_retries=RETRIES), http_client.BROKEN)

    @asynccontextmanager
    async def _reported(self, deadline: float) -> AsyncIterator[None]:
        """What the SDK raises in here, or the end of the time, comes out as UpstreamFailed. Full comes out as it is."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except Full:
            raise
        except Exception as error:
            error.__traceback__ = None  # since Python 3.12 it leads back to the error, over the callers of its frames
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> UpstreamFailed:
        """What clients are told of an error of the SDK's, or of what is under it."""
        import openai

        from handlers.chat.upstream.http_client import BROKEN, REDIRECT

        match error:
            case UpstreamFailed():
                return UpstreamFailed(self._redacted(error.message), error.code)
            case TimeoutError():
                return UpstreamFailed("the upstream sent nothing in time", "first_token_timeout")
            case openai.APIStatusError():
                body = self._redacted(error.response.content.decode("latin-1")).encode("latin-1")
                return from_answer(answered(error.response, body), error.response.headers.get(REDIRECT, ""))
            case openai.APIConnectionError():
                why = self._redacted(environment.explained(error.__cause__ or error))
                return UpstreamFailed(f"the upstream can't be reached: {why}", "upstream_down")
        if isinstance(error, BROKEN):
            return UpstreamFailed("the connection to the upstream broke in the middle of the answer", "broken")
        # of the SDK, or of what is under it: the request holds what neither can send
        return UpstreamFailed(self._redacted(f"the request can't be sent: {describe(error)}"), "bad_request")

    def _redacted(self, text: str) -> str:
        return environment.redacted(text, self.key)
