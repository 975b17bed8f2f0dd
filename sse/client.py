"""EventSource for programs: a URL in, MessageEvents out, through every fault that reconnecting can heal (HTML 9.2).

    async with EventSource("http://127.0.0.1:8090/stream") as source:
        async for event in source:
            print(event.type, event.data)

What happens to a connection, and what follows. It is HTML 9.2.3, except in the line that says `Deviation`:

    what happens                            readyState    then
    200 and text/event-stream               OPEN          the events, until the body ends or breaks
    301, 302, 303, 307, 308                 CONNECTING    the request goes to the Location at once (Fetch 4.4)
    the body ended or broke; no answer      CONNECTING    the same URL again, after a pause, with the last event ID
    429, 502, 503, 504                      CONNECTING    the same. Deviation: a browser fails; they say "later"
    204                                     CLOSED        the iteration ends
    any other status, any other type        CLOSED        ConnectionFailed, with the problem document (RFC 9457)

The pause is the longer of the server's `retry:` and its Retry-After (up to MAX_RETRY_AFTER), plus `full_jitter`.

A request other than GET may have done something (RFC 9110 9.2.2), so it is sent once. It is resumed by GET of the
Location that its answer names, if its events have IDs, or of the URL that it is redirected to by 301, 302 or 303.
Without either it ends when its answer is complete, and fails when that breaks.

The iteration owns the connection, which is closed when the iteration ends, fails or is cancelled, and when the
`async with` block is left. A `break` only drops the iterator, and asyncio closes that a few turns of the loop later:
use `async with` where the connection has to be gone before the next line.
"""

import asyncio
import json as jsonlib
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Any, Final, Self, TextIO

import httpx2

from sse.errors import ConnectionFailed
from sse.wire.event import MessageEvent
from sse.wire.parser import DEFAULT_LIMIT, Parser

# 9.2.2 sets the cache mode "no-store", for which Fetch adds `Cache-Control: no-cache` (HTTP-network-or-cache fetch).
HEADERS: Final = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "identity"}
ABROAD: Final = {*map(str.lower, HEADERS), "content-length", "content-type", "host", "last-event-id", "user-agent"}
"""Headers that also go to another origin than the first URL's. No other one does, whoever set it, and no cookie."""

LATER: Final = (429, 502, 503, 504)
MAX_REDIRECTS: Final = 20  # Fetch 4.4, step 7
MAX_RETRY_AFTER: Final = 300.0
"""Seconds. A longer Retry-After is cut to this, or a server could stop a client for a year."""

MAX_PROBLEM: Final = 65536
"""Bytes of a problem document; a longer one isn't read."""

# After these another connection may succeed. Other errors of httpx2 are the fault of the request or of a redirect.
HEALED: Final = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.ProxyError, httpx2.RemoteProtocolError)
# After these nothing of the request has left this machine, and it may be sent again whatever its method.
NOTHING_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class ReadyState(IntEnum):
    """`EventSource.readyState` (HTML 9.2.2). CLOSED is for good: nothing leads out of it."""

    CONNECTING = 0
    OPEN = 1
    CLOSED = 2


class _Broken(ConnectionFailed):
    """This connection is over, and another one may succeed."""


def full_jitter(failures: int) -> float:
    """Exponential backoff with full jitter: seconds to wait before the next try, besides what the server asked for.

    failures: tries in a row that brought no event, 1 and up. At random between 0 and 1 s, 2 s, 4 s … up to 30 s, so that
    clients that were cut off together don't come back together.
    """
    return random.random() * min(30.0, 2.0 ** min(failures - 1, 10))


@dataclass(eq=False, repr=False, kw_only=True)
class EventSource:
    """Iterate it, once, for the MessageEvents of `url`.

    headers: for the URL's own origin only. json: the body, as a value. client: the caller's own, which stays open and
    whose timeouts are not used. last_event_id: where to go on from. connect_timeout: seconds. idle_timeout: seconds
    without a byte (comments count) that make a connection broken; None: never. max_retries: tries in a row that bring
    no event; None: no limit. limit: bytes of one event. backoff: see `full_jitter`. sleep: for tests. on_change: called
    with the readyState and the reason whenever something else than `aclose` sets it.

    While it is iterated, last_event_id is that of the event given out last; url is where the stream goes on, which for a
    POST may be another URL than it was given. ready_state can be read at any time.

    Raises httpx2.InvalidURL at once; while it is iterated ConnectionFailed (see above, and after max_retries), and
    EventTooLong.
    """

    url: str = field(kw_only=False)
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    json: Any = None
    client: httpx2.AsyncClient | None = None
    last_event_id: str = ""
    connect_timeout: float = 10.0
    idle_timeout: float | None = 60.0
    max_retries: int | None = None
    limit: int = DEFAULT_LIMIT
    backoff: Callable[[int], float] = full_jitter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_change: Callable[[ReadyState, str], object] = lambda _state, _why: None
    ready_state: ReadyState = field(default=ReadyState.CONNECTING, init=False)

    def __post_init__(self) -> None:
        self._client = self.client or httpx2.AsyncClient()
        self.method = self.method.upper()
        first = self._client.build_request(self.method, self.url, json=self.json).url  # on top of the client's base_url
        self.url = str(first)
        self._origin = first.origin
        self._headers = httpx2.Headers(HEADERS, encoding="utf-8")  # Last-Event-ID is sent in UTF-8 (9.2.3)
        self._headers.update(httpx2.Headers(self.headers, encoding="utf-8"))
        self._resumable = self.method == "GET"
        self._timeout = httpx2.Timeout(self.connect_timeout, read=self.idle_timeout)
        self._response: httpx2.Response | None = None
        self._parser = Parser(self.limit, last_event_id=self.last_event_id)
        self._iterated = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close for good (HTML 9.2.2): no event comes after it.

        From another task it ends a read at once, and a pause when that is over; to end both, cancel the iterating task.
        """
        self.ready_state = ReadyState.CLOSED
        if self._response is not None:
            await self._response.aclose()
        if self.client is None:
            await self._client.aclose()

    async def __aiter__(self) -> AsyncGenerator[MessageEvent, None]:
        if self._iterated:
            raise RuntimeError("an EventSource is iterated once; to go on, make another one with last_event_id")
        self._iterated = True
        failures = 0
        try:
            while not self._closed:
                try:
                    async with aclosing(self._connection()) as events:
                        async for event in events:
                            failures = 0
                            yield event
                            if self._closed:
                                return
                except ConnectionFailed as failure:
                    if self._closed:  # it failed because another task has closed it
                        return
                    failures += 1
                    await self._reestablish(failure, failures)
        except ConnectionFailed as failure:
            self._change(ReadyState.CLOSED, str(failure))
            raise
        finally:
            await self.aclose()

    async def _connection(self) -> AsyncGenerator[MessageEvent, None]:
        """The events of one connection. Raises _Broken when another one should follow, ConnectionFailed when not."""
        method = self.method
        try:
            async with aclosing(await self._ask()) as response:
                self._response = response
                await self._judge(response)
                if self._closed:
                    return
                self._parser.reset()  # an event that was cut off is never dispatched (9.2.6)
                async with aclosing(response.aiter_bytes()) as chunks:
                    async for chunk in chunks:
                        for event in self._parser.feed(chunk):
                            self.last_event_id = event.last_event_id
                            if method != "GET" and not event.last_event_id:  # its Location would send all events again
                                self._resumable = False
                            yield event
                        self._parser.feed(b"")  # raises now for an event over the limit, which the last call held back
                        self.last_event_id = self._parser.last_event_id
        except HEALED as fault:
            why = f"{self.url}: {str(fault) or type(fault).__name__}"
            if self._resumable or isinstance(fault, NOTHING_SENT):
                raise _Broken(why) from fault
            once = f"a {method} is sent once, and this one can't be resumed: no Location, or no IDs"
            raise ConnectionFailed(f"{why}; {once}") from fault
        except (httpx2.RequestError, httpx2.InvalidURL) as fault:
            raise ConnectionFailed(f"{self.url}: {fault}") from fault
        if self._resumable:
            raise _Broken(f"{self.url}: the stream ended")
        # Limit: without Content-Length or chunks (HTTP/1.0), an answer that was cut looks complete too.
        self._change(ReadyState.CLOSED, "the answer is complete")

    async def _ask(self) -> httpx2.Response:
        """The answer at the end of the redirects (Fetch 4.4), its body unread. Raises what httpx2 does."""
        headers = self._headers.copy()
        if value := self.last_event_id.strip(" \t"):  # HTTP can't carry the blanks around a value (Fetch 2.2.2)
            headers["Last-Event-ID"] = value
        request = self._client.build_request(self.method, self.url, headers=headers, json=self.json, timeout=self._timeout)
        for _ in range(MAX_REDIRECTS + 1):
            abroad = request.url.origin != self._origin
            for name in request.headers.keys() - ABROAD if abroad else ():
                del request.headers[name]
            auth = None if abroad else httpx2.USE_CLIENT_DEFAULT
            response = await self._client.send(request, stream=True, follow_redirects=False, auth=auth)
            if response.next_request is None or self._closed:
                return response
            await response.aclose()
            request = response.next_request
            if request.method == "GET" and self.method != "GET":  # it is done, and its answer is at the new URL
                self._resume_at(request.url)
                request.headers.pop("Content-Type", None)
        raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")

    def _resume_at(self, url: httpx2.URL) -> None:
        """Make every further request a GET of `url`."""
        self.method, self.url, self.json, self._resumable = "GET", str(url), None, True

    async def _judge(self, response: httpx2.Response) -> None:
        """Announce, close, reestablish or fail the connection, by the answer's status and type (9.2.3)."""
        status, headers = response.status_code, response.headers
        if status == 204:
            self._change(ReadyState.CLOSED, f"{self.url} answered 204: nothing follows")
        elif status != 200:
            problem = await _problem(response)
            why = problem.get("detail") or problem.get("title") or response.reason_phrase
            failure = _Broken if status in LATER and self._resumable else ConnectionFailed
            wait = _retry_after(headers.get("Retry-After", ""))
            raise failure(f"{self.url} answered {status}: {why}", status, problem or None, wait)
        elif _media_type(response) != "text/event-stream":
            got = headers.get("Content-Type", "no Content-Type")
            raise ConnectionFailed(f"{self.url} answered {got}, not text/event-stream", status)
        else:
            self._change(ReadyState.OPEN, "open")
            if self.method != "GET" and "Location" in headers:
                self._resume_at(response.url.join(headers["Location"]))

    async def _reestablish(self, failure: ConnectionFailed, failures: int) -> None:
        """Wait until the next request may be sent (9.2.3). Raises ConnectionFailed if there mustn't be one."""
        if not isinstance(failure, _Broken):
            raise failure
        if self.max_retries is not None and failures > self.max_retries:
            why = f"{failure}; gave up after {self.max_retries} retries"
            raise ConnectionFailed(why, failure.status, failure.problem, failure.retry_after) from failure
        asked = max((self._parser.reconnection_time or 0) / 1000, min(failure.retry_after, MAX_RETRY_AFTER))
        delay = asked + self.backoff(failures)
        self._change(ReadyState.CONNECTING, f"{failure}; next try in {delay:.1f} s")
        await self.sleep(delay)

    @property
    def _closed(self) -> bool:
        return self.ready_state is ReadyState.CLOSED

    def _change(self, state: ReadyState, why: str) -> None:
        if not self._closed:
            self.ready_state = state
            self.on_change(state, why)


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After asks for, as a number or as a date (RFC 9110 10.2.3); 0 if it can't be read."""
    try:
        return float(value) if value.isdigit() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _media_type(response: httpx2.Response) -> str:
    """The Content-Type without its parameters, which don't count (9.2.3; MIME Sniffing 4)."""
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip().lower()


async def _problem(response: httpx2.Response) -> dict[str, Any]:
    """The answer's problem document (RFC 9457); empty if it has none that can be read."""
    if _media_type(response) == "application/problem+json":
        body = b""
        with suppress(httpx2.RequestError, ValueError, RecursionError):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_PROBLEM:
                    return {}
            if isinstance(problem := jsonlib.loads(body), dict):
                return problem
    return {}


# What a program does with events. These functions close nothing: the `async with` of the EventSource does.


async def until(events: AsyncIterable[MessageEvent], *ends: str) -> AsyncGenerator[MessageEvent, None]:
    """The events up to the first one whose type or data is one of `ends`.

    An end that is data, such as "[DONE]", is left out: it is only a sign. One that is a type is the last event given.
    """
    async for event in events:
        if event.data in ends:
            return
        yield event
        if event.type in ends:
            return


async def batched(events: AsyncIterable[MessageEvent], size: int) -> AsyncGenerator[list[MessageEvent], None]:
    """Lists of `size` events. What is left over comes at the end, and before what `events` raises.

    Limit: there is no timer. An event waits for its list to be full, so a stream with pauses wants a small size.
    """
    batch: list[MessageEvent] = []
    try:
        async for event in events:
            batch.append(event)
            if len(batch) >= size:
                full, batch = batch, []
                yield full
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def write_lines(events: AsyncIterable[MessageEvent], file: TextIO) -> None:
    """Write each event to `file` as a line of JSON, `{"type", "data", "id"}`, before the next one is asked for.

    The last line's id is where to go on, as the `last_event_id` of another EventSource; a line without its LF was cut
    off by a crash. Limit: a file that is slow to write holds the event loop.
    """
    async for event in events:
        line = {"type": event.type, "data": event.data, "id": event.last_event_id}
        file.write(visible(jsonlib.dumps(line, ensure_ascii=False)) + "\n")
        file.flush()


# C0 but TAB and LF, DEL, C1, line and paragraph separators, and what reorders text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""`text` with each character that a terminal might obey as an escape, `\u001b`, which in JSON means the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
