r"""What `python -m sse tail` does: event streams for people, and for what stands behind a pipe.

In: the options of the command line (`sse/__main__.py`). Out: on a terminal each event as text, elsewhere as a line of
JSON; on standard error what becomes of the connection. No control character reaches a terminal as it came: it is
written as an escape, `\u001b`, which in JSON means the same.
"""

import argparse
import asyncio
import codecs
import re
import shlex
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TextIO

from sse.client import ConnectionFailed, EventSource, MessageEvent, ReadyState
from sse.errors import SSEError
from sse.following import json_line, to_file, until
from sse.wire.parser import Parser

# C0 but TAB and LF, DEL, C1, line and paragraph separators, what reorders text, and halves of surrogate pairs.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HINTS = {
    None: "is a server running at this host and port?",
    200: "is this the URL of an event stream?",
    401: "say who you are with --header 'Authorization: Bearer TOKEN'",
    403: "say who you are with --header 'Authorization: Bearer TOKEN'",
    404: "is the path right?",
    405: "if it takes a POST, give the body with --post JSON",
}


def visible(text: str) -> str:
    """`text` with each character that a terminal might obey written as an escape."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Console:
    """Standard error: notices and, if `live`, a status line: the connection's state, how many events, their rate."""

    def __init__(self, out: TextIO, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.events = 0
        self.opened = False
        self._out = out
        self._live = live
        self._clock = clock
        self._state = ReadyState.CONNECTING
        self._rate = 0.0

    def changed(self, state: ReadyState, why: str) -> None:
        """EventSource's `on_change`: a reconnect is worth a notice, the rest is seen in the status line."""
        self._state = state
        self.opened = self.opened or state is ReadyState.OPEN
        if state is ReadyState.CONNECTING:
            self.notice(why)

    def notice(self, text: str) -> None:
        self.clear()
        print(f"sse: {visible(text)}", file=self._out, flush=True)

    def clear(self) -> None:
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def draw(self) -> None:
        if self._live:
            line = f"{self._state.name.lower()} · {self.events} events · {self._rate:.1f}/s"
            self._out.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
            self._out.flush()

    async def tick(self) -> None:
        """Measure the rate and draw, once a second, until cancelled; at once done if nobody would see it."""
        while self._live:
            before, since = self.events, self._clock()
            self.draw()
            await asyncio.sleep(1)
            self._rate = (self.events - before) / (self._clock() - since)


class RawParser(Parser):
    """A parser that also writes what it is fed, as text: invalid UTF-8 as `\\xff`."""

    __slots__ = ("_decoder", "_write")

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        super().__init__()

    def reset(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        super().reset()

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        self._write(self._decoder.decode(chunk))
        return super().feed(chunk)


async def tail(options: argparse.Namespace) -> None:
    """Follow the stream that the options name until it ends. Raises what `EventSource` and `to_file` do."""
    terminal = sys.stdout.isatty()
    console = Console(sys.stderr, sys.stderr.isatty() and (terminal or options.out is not None))

    def write(text: str) -> None:
        console.clear()
        sys.stdout.write(visible(text))
        sys.stdout.flush()
        console.draw()

    posts = options.post is not None
    source = EventSource(
        options.url,
        method="POST" if posts else "GET",
        headers={**({"Content-Type": "application/json"} if posts else {}), **dict(options.header)},
        content=options.post,
        last_event_id=options.last_event_id,
        idle_timeout=options.idle_timeout,
        max_retries=options.max_retries,
        parser=RawParser(write) if options.raw else None,
        on_change=console.changed,
    )
    ticker = asyncio.ensure_future(console.tick())
    try:
        async with source, aclosing(_counted(until(source, *options.until), console)) as events:
            if options.out is not None:
                await to_file(events, options.out)
                return
            async for event in events:
                if not options.raw:
                    write(_text(event) if terminal else json_line(event).decode())
    except asyncio.CancelledError:
        console.notice(_how_to_go_on(source, options))
        raise
    except ConnectionFailed as failure:
        hint = HINTS.get(failure.status) if failure.status is not None or not console.opened else None
        raise SSEError(f"{failure}; {hint}" if hint else str(failure)) from failure
    finally:
        ticker.cancel()
        console.clear()


async def _counted(events: AsyncGenerator[MessageEvent, None], console: Console) -> AsyncGenerator[MessageEvent, None]:
    async with aclosing(events):
        async for event in events:
            console.events += 1
            yield event


def _text(event: MessageEvent) -> str:
    head = f"{event.last_event_id}  {event.type}  " if event.last_event_id else f"{event.type}  "
    return head + event.data.replace("\n", "\n    ") + "\n"


def _how_to_go_on(source: EventSource, options: argparse.Namespace) -> str:
    if options.out is not None:
        return "stopped; the same command goes on where the file ends"
    if not source.last_event_id:
        return "stopped; the stream has sent no ID to go on from"
    words = ("python", "-m", "sse", "tail", source.url, "--last-event-id", source.last_event_id)
    return f"stopped; go on with: {shlex.join(words)}"
