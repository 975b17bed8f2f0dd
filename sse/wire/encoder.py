"""Events -> bytes, for a body of type `text/event-stream`.

In:  `Event` or `Comment`, checked when they were built. Out: the bytes of the whole event, its empty line included.
HTML Standard, section 9.2.5: always UTF-8, and every line here ends with LF.

    id: 7                 the fields, in this order, each only if it is set
    event: add
    retry: 2000
    data: first line      one for each line of the data
    data: second line
                          the empty line that dispatches the event

One space follows each colon, always: the reader takes one away (9.2.6), so a value that begins with a space keeps it.
"""

from sse.wire.event import Comment, Event

HEARTBEAT = b":\n"
"""The shortest line that no client acts on. One LF only: an empty line would dispatch an event that has begun."""


def encode(event: Event | Comment) -> bytes:
    """The bytes of one event, or of one comment (which ends no event, and may stand between its fields)."""
    if isinstance(event, Comment):
        return b": %b\n" % _lines(event.text.encode(), b": ") if event.text else HEARTBEAT
    fields = b""
    if event.id is not None:
        fields += b"id: %b\n" % event.id.encode()
    if event.event is not None:
        fields += b"event: %b\n" % event.event.encode()
    if event.retry is not None:
        fields += b"retry: %d\n" % event.retry
    if event.data is not None:
        data = event.data.encode() if isinstance(event.data, str) else event.data
        fields += b"data: %b\n" % _lines(data, b"data: ")
    return fields + b"\n"


def encode_json(json: bytes, event: str | None = None) -> bytes:
    """The bytes of one event whose data is JSON from `payload.dumps`.

    Nothing is checked: `dumps` leaves no CR or LF in its result; `event` has to be a name that `Event` would take.
    JSON from anywhere else goes through `Event`, since CR and LF are allowed between its tokens (RFC 8259, section 2).
    """
    if event is None:
        return b"data: %b\n\n" % json
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json)


def _lines(text: bytes, begin: bytes) -> bytes:
    """Let every line of the text but the first begin with `begin`."""
    # 9.2.5: CR LF, LF and CR end a line, nothing else does. str.splitlines() knows eight more, U+2028 among them.
    if 13 in text:  # `in` finds a number faster than a bytes object
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.replace(b"\n", b"\n" + begin)
