r"""An encoded event -> the same event in ASCII, for consumers that can't show anything else.

In:  the bytes of events whose data is JSON. Out: the same, with every text transliterated (extra `ascii`, anyascii).

Outside of its strings JSON is ASCII (RFC 8259, section 2). So a character that isn't ASCII stands in a string, as itself or as
an escape `\uXXXX`. Its transliteration may hold quotes and backslashes, which are escaped.
"""

import json
import re

_ESCAPES_AND_OTHERS = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.|[^\x00-\x7f]+")


def to_ascii(event: bytes) -> bytes:
    """Raises ModuleNotFoundError without anyascii (`pip install 'sidestream[ascii]'`)."""
    from anyascii import anyascii

    def replaced(match: re.Match[str]) -> str:
        found = match[0]
        text = json.loads(f'"{found}"') if found.startswith("\\") else found
        return found if text.isascii() else json.dumps(anyascii(text))[1:-1]

    if event.isascii() and b"\\u" not in event:
        return event
    return _ESCAPES_AND_OTHERS.sub(replaced, event.decode()).encode("ascii")
