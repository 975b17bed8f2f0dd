"""The command line, `python -m sse tail URL`. Exit status: 0 the stream ended, 1 it failed, 2 misuse, 130 Ctrl-C."""

import argparse
import asyncio
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import httpx2

from sse.errors import SSEError
from sse.following import resume_point
from sse.tail import tail, visible


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sse: {message}; --help says more\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say (those of the process if None) and return the exit status."""
    options = _options(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        asyncio.run(tail(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has left, and what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SSEError, OSError) as error:
        print(f"sse: {visible(str(error))}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser("python -m sse", description="Tools for server-sent events.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "tail",
        help="print the events of a stream as they come",
        description="Print the events of a stream as they come: text on a terminal, lines of JSON in a pipe. "
        "Comes back by itself when the connection breaks, and goes on after the last event ID.",
    )
    add = command.add_argument
    add("url", metavar="URL", type=_url, help="of an event stream; http:// may be left out")
    add("--header", metavar="'NAME: VALUE'", type=_header, action="append", default=[], help="add it; may be repeated")
    add("--post", metavar="JSON", type=_json, help="POST this instead of a GET; it is sent once, and resumed by GET")
    add("--last-event-id", metavar="ID", default="", help="go on after this event")
    add("--until", metavar="END", action="append", default=[], help="stop at this event name or data; may be repeated")
    add("--max-retries", metavar="N", type=int, default=10, help="tries in a row that bring no event, then give up (10)")
    add("--idle-timeout", metavar="S", type=float, default=60.0, help="seconds of silence that count as broken (60)")
    output = command.add_mutually_exclusive_group()
    output.add_argument("--raw", action="store_true", help="print what arrives, control characters made visible")
    output.add_argument("--out", metavar="FILE", help="append lines of JSON to FILE; run again to go on where it ends")
    options = parser.parse_args(arguments)
    if options.out is not None:
        _resume(options, command)
    return options


def _resume(options: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    try:
        last_event_id = resume_point(options.out)
    except (OSError, ValueError) as error:
        command.error(f"--out: {error}")
    if last_event_id and options.post is not None:
        command.error(f"--out: {options.out} holds events already, and --post would begin anew; name another file")
    options.last_event_id = last_event_id or options.last_event_id


def _url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL ({error})") from error
    return url


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()


def _json(text: str) -> bytes:
    try:
        json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not JSON ({error}); it looks like \'{{"prompt": "hi"}}\'') from error
    return text.encode()


if __name__ == "__main__":
    sys.exit(main())
