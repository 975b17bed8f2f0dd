"""Texts that may hold half a surrogate pair: servers cut a model's text anywhere, and write such a half as `"\\ud83d"`.

In:  values as parsed, where each half is a lone surrogate. Out: JSON that keeps the halves, or whole texts.
"""

import json
from collections.abc import Iterable
from typing import Any

import orjson


def write(value: Any) -> bytes:
    """A parsed chunk -> JSON without CR or LF. Half surrogate pairs stay escapes: `payload.dumps` would replace them."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def joined(texts: Iterable[str]) -> str:
    """The text of many chunks; surrogates that make a pair are joined, those left alone become U+FFFD."""
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
