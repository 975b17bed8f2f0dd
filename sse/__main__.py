r"""The command line: `python -m sse tail URL` prints the events of a stream as they come; `python -m sse probe URL` says what
stands between here and a sidecar (`sse.probe`).

In: the options. Out: on a terminal each event as text, its last event ID, type and data; elsewhere as a line of JSON
(`sse.client.write_lines`). Changes of the connection are reported on standard error. Control characters, which a
terminal would obey, are written as escapes such as `\u001b`.

Exit status: 0 the stream ended, the reader of the output left, or the probe found nothing bad; 1 the connection failed, or the
probe found something bad; 2 wrong arguments; 130 Ctrl-C.
"""

import argparse
import asyncio
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import httpx2

from sse.client import EventSource, ReadyState, until, visible, write_lines
from sse.errors import ConnectionFailed, SSEError
from sse.probe import SILENCE, judge, measure
from sse.wire.event import MessageEvent

MARKS = {"good": "✓", "note": "·", "bad": "✗"}
"""Of the levels of what a probe finds."""

IDENTIFY = "say who you are with --header 'Authorization: Bearer TOKEN'"
HINTS = {
    200: "is this the URL of an event stream?",
    401: IDENTIFY,
    403: IDENTIFY,
    404: "is the path right?",
    405: "does it take a GET, or a POST (--post JSON)?",
}
"""A hint for the user, by the status that the connection failed with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say (those of the process if None) and return the exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal whose encoding lacks a character
    try:
        status: int = asyncio.run(options.command(options))
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has left; what is still buffered is dropped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConnectionFailed:  # the reason is printed already
        return 1
    except (SSEError, OSError) as error:
        _notice(str(error))
        return 1
    except httpx2.InvalidURL as error:
        _notice(f"{options.url!r} is not a URL: {error}")
        return 2
    return 0


def _url(text: str) -> str:
    return text if "://" in text else f"http://{text}"


async def probe(options: argparse.Namespace) -> int:
    """Print what stands between here and the sidecar that the options name. Raises ProbeFailed."""
    findings = judge(await measure(_url(options.url), headers=dict(options.header), silence=options.silence))
    for finding in findings:
        print(visible(f"{MARKS[finding.level]} {finding.name}: {finding.says}"))
        for line in finding.mend.splitlines():
            print(visible(f"    {line}"))
    return int(any(finding.level == "bad" for finding in findings))


async def tail(options: argparse.Namespace) -> int:
    """Print the stream that the options name, up to its end. Raises what EventSource does."""

    def changed(state: ReadyState, why: str) -> None:
        _notice(f"connected to {source.url}" if state is ReadyState.OPEN else why)

    source = EventSource(
        _url(options.url),
        method="GET" if options.post is None else "POST",
        headers=dict(options.header),
        json=options.post,
        last_event_id=options.last_event_id,
        idle_timeout=options.idle_timeout,
        max_retries=options.max_retries,
        on_change=changed,
    )
    try:
        async with source:
            events = until(source, *options.until)
            if sys.stdout.isatty():
                async for event in events:
                    print(_text(event), flush=True)
            else:
                await write_lines(events, sys.stdout)
    except asyncio.CancelledError:
        words = ("python", "-m", "sse", "tail", source.url, "--last-event-id", source.last_event_id)
        _notice(f"stopped; go on with: {shlex.join(words)}" if source.last_event_id else "stopped")
        raise
    except ConnectionFailed as failure:
        if failure.status in HINTS:
            _notice(HINTS[failure.status])
        raise
    return 0


def _text(event: MessageEvent) -> str:
    dim, cyan, plain = ("", "", "") if os.environ.get("NO_COLOR") else ("\x1b[2m", "\x1b[36m", "\x1b[0m")
    id = f"{dim}{visible(event.last_event_id)}{plain}  " if event.last_event_id else ""
    data = visible(event.data).replace("\n", "\n    ")
    return f"{id}{cyan}{visible(event.type)}{plain}  {data}"


def _notice(text: str) -> None:
    print(f"sse: {visible(text)}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sse", description="Tools for server-sent events.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "tail",
        help="print the events of a stream as they come",
        description="Print the events of a stream as they come: text on a terminal, lines of JSON in a pipe or a file. "
        "Comes back by itself when the connection breaks, and goes on after the last event ID.",
    )
    add = _addressed(command, tail, "of an event stream")
    add("--post", metavar="JSON", type=JSON, help="POST this instead of a GET; it is sent once, and resumed by GET")
    add("--last-event-id", metavar="ID", default="", help="go on after this event")
    add("--until", metavar="END", action="append", default=[], help="stop at this event type or data; may be repeated")
    add("--max-retries", metavar="N", type=int, default=10, help="tries in a row that bring no event, then give up (10)")
    add("--idle-timeout", metavar="S", type=float, default=60.0, help="seconds of silence that count as broken (60)")
    command = commands.add_parser(
        "probe",
        help="say what stands between here and a sidecar",
        description="Ask a sidecar for events at a known pace, and say from their arrival whether something on the way "
        "buffers, compresses, strips or cuts idle streams, and which line of nginx's configuration mends it.",
    )
    add = _addressed(command, probe, "of the sidecar, as its clients reach it")
    add("--silence", metavar="S", type=float, default=SILENCE, help=f"seconds without an event to sit through ({SILENCE:g})")
    return parser


def _addressed(command: argparse.ArgumentParser, run: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Add a URL and headers to a command. Returns the function that adds more arguments to it."""
    command.set_defaults(command=run)
    command.add_argument("url", metavar="URL", help=f"{what}; http:// may be left out")
    about = "add it; may be repeated"
    command.add_argument("--header", metavar="'NAME: VALUE'", type=header, action="append", default=[], help=about)
    return command.add_argument


def header(text: str) -> tuple[str, str]:
    """A header from `NAME: VALUE`. argparse puts this function's name into its message: "invalid header value"."""
    name, value = text.split(":", 1)
    return name.strip(), value.strip()


def JSON(text: str) -> Any:
    """A JSON value. Named for argparse, as above."""
    return json.loads(text)


if __name__ == "__main__":
    sys.exit(main())
