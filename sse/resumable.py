"""A request that can be sent again: what a client asks for, over and over, until a stream has been read to its end.

In: a URL, a method, headers, a body, and the last event ID. Out: the answer, with its body unread, after redirects
(Fetch 4.4). A GET is sent as often as it takes. Any other request is sent once, because it may have done something
(RFC 9110 9.2.2); what follows is a GET of where its answer is found: the URL it was redirected to, or the `Location`
it named.

The caller's headers, and Authorization whoever set it, go to the origin of the first URL only; httpx2 by itself would
take all but Authorization along. `Limit:` cookies are the httpx2 client's own matter, as is what its event hooks add.
"""

import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import httpx2

HEADERS = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
SEEN_ELSEWHERE = frozenset({"accept", "accept-encoding", "cache-control", "content-type"})
MAX_REDIRECTS = 20  # Fetch 4.4, step 7
MAX_PROBLEM = 65536  # bytes of a problem document that are read

# Nothing of the request left this machine: it may be sent again whatever its method.
NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
# The request, or what it was redirected to, is at fault: the next one would be too.
FUTILE = (
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
    httpx2.TooManyRedirects,
    httpx2.DecodingError,
    httpx2.InvalidURL,
)


class ResumableRequest:
    """url, method: what is asked next; `resume_at` changes both. location: where to, once an answer has named it."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | None,
        timeout: httpx2.Timeout,
    ) -> None:
        self.method = method.upper()
        self.url = client.build_request(self.method, url).url  # on top of the client's base_url
        self.location: httpx2.URL | None = None
        self._origin = self.url.origin
        self._client = client
        self._headers = httpx2.Headers(headers, encoding="utf-8")
        self._content = content
        self._timeout = timeout

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent although an earlier one may have arrived."""
        return self.method == "GET"

    def resume_at(self, url: httpx2.URL | str) -> None:
        """From now on it is a GET of `url`, which may be relative."""
        self.url, self.method, self._content, self.location = self.url.join(url), "GET", None, None
        self._headers.pop("Content-Type", None)

    async def send(self, last_event_id: str) -> httpx2.Response:
        """The answer at the end of the redirects. Raises what httpx2 does; close the answer in the end."""
        headers = httpx2.Headers(HEADERS, encoding="utf-8")
        headers.update(self._headers)
        if value := last_event_id.strip(" \t"):  # HTTP can't carry the blanks around a value (Fetch 2.2.2)
            headers["Last-Event-ID"] = value  # in UTF-8 (9.2.3)
        request = self._client.build_request(
            self.method, self.url, headers=headers, content=self._content, timeout=self._timeout
        )
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send_one(request)
            if response.next_request is None:
                return response
            await response.aclose()
            request = response.next_request
            if request.method == "GET" and not self.repeatable:  # it was done, and its answer is over there
                self.resume_at(request.url)
        raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")

    async def _send_one(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.origin == self._origin:
            return await self._client.send(request, stream=True, follow_redirects=False)
        for name in {*self._headers, "authorization"} - SEEN_ELSEWHERE:
            request.headers.pop(name, None)
        return await self._client.send(request, stream=True, follow_redirects=False, auth=None)


async def read_problem(response: httpx2.Response) -> dict[str, Any] | None:
    """The answer's problem document (RFC 9457); None if it has none, or none that can be read."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/problem+json":
        return None
    body = b""
    try:
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_PROBLEM:
                    return None
        problem = json.loads(body)
    except (httpx2.TransportError, ValueError):
        return None
    return problem if isinstance(problem, dict) else None
