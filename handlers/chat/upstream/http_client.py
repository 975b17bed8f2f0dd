"""The HTTP client under the SDK: the SDK's own, on a transport of ours; and on its own one where there is a proxy.

Besides, an error answer is read up to a limit, a redirect takes the prompt to no other host, and the SDK doesn't try again if
the upstream wants it to wait for longer than we do. It is loaded with the SDK, on a thread.
"""

from collections.abc import AsyncIterator
from typing import Final
from urllib.request import getproxies

import anyio
import httpx2

from handlers.chat.upstream.decoded import Layer, decode
from handlers.chat.upstream.failures import MAX_SAID
from handlers.chat.upstream.transport import MAX_IDLE, Transport

MAX_RETRY_AFTER: Final = 2.5
"""Seconds that one retry may wait, 5 for both. Where the upstream asks for more, its failure is reported at once."""

REDIRECT: Final = "x-sidestream-redirect"
"""Header of an answer that would have led to another host, which it names."""

BROKEN: Final = (httpx2.RequestError, OSError, anyio.EndOfStream)
"""What reading a body raises when the connection breaks."""

LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE)
"""As many connections as there are answers; those that are kept for the next ones, as many as the SDK keeps."""


def create(base_url: str) -> httpx2.AsyncClient:
    """base_url: of the upstream. Proxies and certificates come from the environment, as httpx2 reads it.

    Raises what httpx2 raises if it can't use them.

    Limit: with any proxy set, answers from an upstream that NO_PROXY names come through httpx2's transport too: only httpx2
    knows how it reads that variable.
    """
    from openai import DefaultAsyncHttpxClient

    proxied = any(getproxies().get(scheme) for scheme in ("http", "https", "all"))
    transport = None if proxied else Transport(tls=not base_url.startswith("http:"))
    # httpx2 would ask for brotli and zstd too, where their packages are installed; `decoded` knows neither.
    headers, hooks = {"accept-encoding": "gzip, deflate"}, {"response": [tamed]}
    return DefaultAsyncHttpxClient(limits=LIMITS, transport=transport, headers=headers, event_hooks=hooks)


async def tamed(response: httpx2.Response) -> None:
    """For every answer, before the SDK looks at it."""
    if response.has_redirect_location and (other := _other_host(response)):
        response.headers[REDIRECT] = other
        del response.headers["location"]
    decode(response)
    if not response.is_success:
        response.stream = _Bounded(response.stream)
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := response.headers.get(header)) is not None:
            try:
                wait = float(value) * unit
            except ValueError:  # a date
                wait = MAX_RETRY_AFTER + 1
            if not wait <= MAX_RETRY_AFTER:  # NaN is not
                response.headers["x-should-retry"] = "false"


def _other_host(response: httpx2.Response) -> str:
    """Where a redirect leads to, if that is another host; or if it can't be followed."""
    try:
        url = response.request.url.join(response.headers["location"])
    except httpx2.InvalidURL:
        return "a place that is no URL"
    return "" if url.host == response.request.url.host else f"{url.scheme}://{url.host}"


class _Bounded(Layer):
    """The body of an error answer, which ends at a limit."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._stream:
            size += len(data)
            yield data
            if size >= MAX_SAID:
                return
