r"""Server-sent events. The protocol on one page (HTML Standard, section 9.2):

A client sends a GET with `Accept: text/event-stream`. The answer has the status 200, the type `text/event-stream`, and
a body that goes on for as long as there is something to tell. It is UTF-8 text in lines that end with LF, CR LF or CR.

    retry: 2000             fields: a name, a colon, one space that doesn't count, a value
    id: 7
    event: price
    data: {"now": 12.5}
                            an empty line dispatches the event: type "price", data '{"now": 12.5}', last event ID "7"
    : still here            a comment: a colon comes first. Clients ignore it, proxies see that the connection lives

    data    a line of the data; several are joined by LF. Without any, nothing is dispatched      9.2.6
    event   the type of this event; `message` if there is none
    id      the last event ID, for this event and those after it
    retry   the reconnection time in milliseconds

    body ended, connection lost     wait for the reconnection time, then ask again with           9.2.3
                                    `Last-Event-ID: 7`, and get what comes after it               9.2.4
    204, any other status or type   the connection has failed: no more attempts                   9.2.3

The code: `sse.wire.lines` cuts lines, `sse.wire.parser` reads fields and dispatches events, `sse.wire.encoder` writes events,
`sse.wire.payload` turns Python values into data. `docs/wire-protocol.md` explains the protocol by example.
"""

from sse.errors import EventTooLong, SourceFailed, SSEError, Unwritable
from sse.wire import HEARTBEAT, Comment, Event, MessageEvent, Parser, dumps, encode, encode_json, to_ascii

__version__ = "0.2.0"

__all__ = [
    "HEARTBEAT",
    "Comment",
    "Event",
    "EventTooLong",
    "MessageEvent",
    "Parser",
    "SSEError",
    "SourceFailed",
    "Unwritable",
    "__version__",
    "dumps",
    "encode",
    "encode_json",
    "to_ascii",
]
