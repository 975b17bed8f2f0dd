"""The wire protocol, sans-IO: bytes and values only; no async, no clock, no socket.

    writing    value -> payload.dumps -> Event -> encoder.encode -> bytes
    reading    bytes -> lines.LineSplitter -> parser.Parser -> MessageEvent

HTML Standard, section 9.2 "Server-sent events": `lines` is 9.2.5, `parser` is 9.2.6, `event` what both of them allow.
`docs/wire-protocol.md` teaches it by example; `tests/vectors.json` holds the cases in a form for any language.
"""

from sse.wire.ascii import to_ascii
from sse.wire.encoder import HEARTBEAT, encode, encode_json
from sse.wire.event import Comment, Event, MessageEvent
from sse.wire.parser import Parser
from sse.wire.payload import dumps

__all__ = ["HEARTBEAT", "Comment", "Event", "MessageEvent", "Parser", "dumps", "encode", "encode_json", "to_ascii"]
