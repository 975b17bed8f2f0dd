"""EventSource for programs: a URL in, MessageEvents out, through every fault that reconnecting can heal (HTML 9.2).

    async with EventSource("http://127.0.0.1:8090/stream") as source:
        async for event in source:
            print(event.type, event.data)

It follows HTML 9.2.3 except where a line says `Deviation:` here or in `sse/reconnection.py`, which holds the tables. A
request other than GET is sent once, and resumed by GET if its answer named a Location and its events have IDs
(`sse/resumable.py`); otherwise it ends with its answer's body.

Who closes what: the iteration owns the connection. It is closed when the iteration ends, fails or is cancelled, when
the `async with` block is left, and after `aclose`. A `break` only drops the iterator, and asyncio closes it a few
turns of the loop later: use `async with` where the connection must be gone before the next line.
"""

import asyncio
import json as jsonlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Self

import httpx2

from sse.errors import ConnectionFailed
from sse.reconnection import NEXT_STATE, ON_STATUS, Backoff, ReadyState, Step, is_event_stream, retry_after
from sse.resumable import FUTILE, NOTHING_SENT, ResumableRequest, read_problem
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser

__all__ = ["Backoff", "ConnectionFailed", "EventSource", "MessageEvent", "ReadyState"]


class _Broken(ConnectionFailed):
    """This connection is over, and another one may do better. after: seconds that the server asked to wait.

    unsent: nothing of the request was sent. complete: the body came to its end.
    """

    after = 0.0
    unsent = False
    complete = False


class EventSource:
    """Iterate it, once, for the MessageEvents of `url`; the iteration ends on 204 and after `aclose`.

    headers: for the URL's own origin only. content, json: the body, as bytes or as a value. client: the caller's own;
    it stays open, and its timeouts are not used. last_event_id: where to go on from. connect_timeout: seconds.
    idle_timeout: seconds without a byte (comments count) that make a connection broken; None: never. max_retries:
    tries in a row that bring no event; None: no limit. parser: one with a limit of your own. backoff, sleep, clock
    (Unix time): for tests. on_change: called with the readyState and the reason each time it is set.

    Raises ConnectionFailed, with status and problem document, for an answer that HTML 9.2.3 fails on, after
    max_retries, and for a broken POST that can't be resumed; EventTooLong; httpx2.InvalidURL at once.
    """

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        client: httpx2.AsyncClient | None = None,
        last_event_id: str = "",
        connect_timeout: float = 10.0,
        idle_timeout: float | None = 60.0,
        max_retries: int | None = None,
        parser: Parser | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[ReadyState, str], None] | None = None,
    ) -> None:
        if json is not None:
            content = jsonlib.dumps(json).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        self.ready_state = ReadyState.CONNECTING
        self.last_event_id = last_event_id
        self._parser = parser or Parser()
        self._parser.last_event_id = last_event_id
        self._client = client or httpx2.AsyncClient()
        self._own_client = client is None
        timeout = httpx2.Timeout(connect_timeout, read=idle_timeout)
        self._request = ResumableRequest(self._client, method, url, headers, content, timeout)
        self._response: httpx2.Response | None = None
        self._max_retries = max_retries
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._clock = clock
        self._on_change = on_change
        self._iterated = False

    @property
    def url(self) -> str:
        """Where the stream goes on: the URL given, or what the answer to a POST named."""
        return str(self._request.location or self._request.url)

    @property
    def reconnection_time(self) -> int | None:
        """Milliseconds, as the server's last `retry:` said; None before there was one."""
        return self._parser.reconnection_time

    @property
    def _closed(self) -> bool:
        return self.ready_state is ReadyState.CLOSED

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close for good (HTML 9.2.2): no event comes after it.

        From another task it ends a read at once, and a pause when that is over; to end both, cancel the iterating task.
        """
        self._change(Step.CLOSE, "closed")
        if self._response is not None:
            await self._response.aclose()
        if self._own_client:
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
                except _Broken as broken:
                    failures += 1
                    await self._reestablish(broken, failures)
        except ConnectionFailed as failure:
            self._change(Step.FAIL, str(failure))
            raise
        finally:
            await self.aclose()

    async def _connection(self) -> AsyncGenerator[MessageEvent, None]:
        """The events of one connection. Raises _Broken when it should be followed by another one."""
        try:
            response = self._response = await self._request.send(self.last_event_id)
            await self._judge(response)
            if self._closed:
                return
            self._parser.reset()  # an event that was cut off is never dispatched (9.2.6)
            async with aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    for event in self._parser.feed(chunk):
                        self.last_event_id = event.last_event_id
                        if not event.last_event_id:  # asked for again, a POST's stream would begin anew
                            self._request.location = None
                        yield event
                    self._parser.feed(b"")  # raises now what it held back to give out the events before
                    self.last_event_id = self._parser.last_event_id
        except FUTILE as fault:
            raise ConnectionFailed(f"{self.url}: {fault}") from fault
        except httpx2.TransportError as fault:
            broken = _Broken(f"{self.url}: {str(fault) or type(fault).__name__}")
            broken.unsent = isinstance(fault, NOTHING_SENT)
            raise broken from fault
        finally:
            if self._response is not None:
                await self._response.aclose()
        ended = _Broken(f"{self.url}: the stream ended")
        ended.complete = True
        raise ended

    async def _judge(self, response: httpx2.Response) -> None:
        """Announce, close, reestablish or fail the connection, by the answer's status and type (9.2.3)."""
        status, headers = response.status_code, response.headers
        step = ON_STATUS.get(status, Step.FAIL)
        if step is Step.CLOSE:
            self._change(step, f"{self.url} answered {status}")
        elif step is Step.ANNOUNCE and is_event_stream(headers.get("Content-Type", "")):
            self._change(step, "open")
            if "Location" in headers and not self._request.repeatable:
                self._request.location = response.url.join(headers["Location"])
        elif step is Step.ANNOUNCE:
            got = headers.get("Content-Type", "no Content-Type")
            raise ConnectionFailed(f"{self.url} answered {got}, not text/event-stream", status=status)
        else:
            problem = await read_problem(response) or {}
            reason = problem.get("detail") or problem.get("title") or response.reason_phrase
            refused = _Broken(f"{self.url} answered {status}: {reason}", status=status, problem=problem or None)
            refused.after = retry_after(headers.get("Retry-After", ""), self._clock())
            raise refused if step is Step.REESTABLISH else _final(refused, "")

    async def _reestablish(self, broken: _Broken, failures: int) -> None:
        """Wait until the next request may be sent. ConnectionFailed if there mustn't be one."""
        if self._closed:  # while this connection was read: that is why it broke
            return
        if self._request.location is not None:
            self._request.resume_at(self._request.location)
        if not self._request.repeatable and broken.complete:
            # Limit: without Content-Length or chunks (HTTP/1.0), an answer that was cut looks complete too.
            self._change(Step.CLOSE, "the answer is complete")
            return
        if not (self._request.repeatable or broken.unsent):
            why = f"; a {self._request.method} is sent once, and this one can't be resumed: no Location, or no IDs"
            raise _final(broken, why) from broken
        if self._max_retries is not None and failures > self._max_retries:
            raise _final(broken, f"; gave up after {self._max_retries} retries") from broken
        delay = self._backoff.delay(failures, self.reconnection_time, broken.after)
        self._change(Step.REESTABLISH, f"{broken}; again in {delay:.1f} s")
        await self._sleep(delay)

    def _change(self, step: Step, why: str) -> None:
        before, self.ready_state = self.ready_state, NEXT_STATE[self.ready_state, step]
        if self._on_change is not None and before is not ReadyState.CLOSED:
            self._on_change(self.ready_state, why)


def _final(broken: _Broken, why: str) -> ConnectionFailed:
    return ConnectionFailed(f"{broken}{why}", status=broken.status, problem=broken.problem)
