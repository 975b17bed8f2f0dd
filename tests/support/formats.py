"""What the tests of the chat formats share: an answer with a tool in two stages, and what is written, read back."""

import json
from typing import Any

from handlers.chat.formats.base import ChatFormat
from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.request import Offer
from sse.formats import Written
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support.chat import MESSAGES, encoded
from tests.support.upstream import DONE, call, chunk, chunk_object, event, finish, reply, usage

FAILURE = UpstreamFailed("the answer — was cut", "cut")
TOOL = [
    reply(
        event(chunk_object({"role": "assistant", "content": ""})),
        chunk("Ünder "),
        call("calculate", '{"expression": "6*7"}'),
        finish("tool_calls"),
        usage(1, 2),
        DONE,
    ),
    reply(
        event(chunk_object({"role": "assistant", "content": ""}, id="chatcmpl-2")), chunk("way"), finish(), usage(3, 4), DONE
    ),
]
CLIENTS = {"type": "function", "function": {"name": "lookup", "parameters": {}}}


def made(format: type[ChatFormat], **body: Any) -> Any:
    """A format for one answer."""
    return format({"messages": MESSAGES, **body}, Offer())


def events(written: Written) -> list[MessageEvent]:
    return Parser().feed(encoded(written))


def one(written: Written) -> tuple[str, Any]:
    """The only event in there: its type and its JSON."""
    [found] = events(written)
    return found.type, json.loads(found.data)


def a_chunk(text: str) -> Chunk:
    value = chunk_object({"content": text})
    return Chunk(json.dumps(value).encode(), value, text)
