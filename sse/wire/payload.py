"""Any Python value -> JSON, as UTF-8 bytes that fit into one `data` line.

In:  what an application yields. Out: JSON (RFC 8259) without CR or LF, or Unwritable.

    value                                            becomes
    str, bool, None, int, float, dict, list, tuple   themselves, subclasses too; NaN and infinities null
    datetime, date, time                             ISO 8601
    Enum                                             its value
    dataclass                                        an object; fields that begin with "_" are left out
    pydantic model, any object with `model_dump()`   what that returns
    other mapping; other collection, a set too       an object; an array, in the order of its iteration
    bytes, bytearray, memoryview                     their text, which has to be UTF-8
    exception                                        {"type", "message"}
    UUID, Decimal, Path, anything else               str(): a Decimal keeps its digits this way
    integers over 64 bits                            their digits; Limit: JavaScript and others lose the last ones
    keys that are a number, a bool, None, a date,    their text
      a time, an Enum or a UUID
    lone surrogates                                  U+FFFD; two that make a pair, the character

    other keys; over 254 levels, and so a circle;    Unwritable: its author is told, and no guess is sent in
      an object whose own methods raise              its place
"""

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from typing import Any

import orjson

from sse.errors import Unwritable, describe

# Dates and dataclasses are converted here: a tzinfo that raises, and an empty slot, end the process with a segmentation
# fault in orjson 3.13.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_SPACES = bytes.maketrans(b"\r\n", b"  ")


def dumps(value: Any) -> bytes:
    """JSON for the value, in one line. Raises Unwritable for what the table says."""
    try:
        json = orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:  # orjson's own errors are TypeErrors, and are raised for what `_plain` raises too
        try:
            json = orjson.dumps(_mended(value), option=_OPTIONS | orjson.OPT_NON_STR_KEYS)
        except BaseException as error:  # the methods of other people's classes can raise anything
            raise Unwritable(f"this {type(value).__name__} has no JSON form: {describe(error)}") from error
    if 10 in json or 13 in json:  # orjson writes none, but a caller's orjson.Fragment may have them between tokens
        json = json.translate(_SPACES)
    return json


def fragment(value: Any) -> Any:
    """The value's JSON, as a value; the reason, where it has none."""
    try:
        return orjson.Fragment(b"%b" % dumps(value))  # a copy: what orjson returns occupies 4 to 8 KiB more than its bytes
    except Unwritable as error:
        return str(error)


def _plain(value: Any) -> Any:
    """One step towards JSON for an object that orjson doesn't know; what it holds may need more steps."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if not field.name.startswith("_")}
    if hasattr(type(value), "model_dump"):  # asks the type: a model's class has the method too, but is no model
        return value.model_dump()
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode()
        case BaseException():
            return {"type": type(value).__name__, "message": str(value)}
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case float():  # orjson writes subclasses of str, int, dict and list, not of this one
            return float(value)
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
        case Collection():
            return list(value)
    return str(value)


def _mended(value: Any) -> Any:
    """The same value made of types that orjson writes. Slow, a few Python calls an item: only for a value it has refused."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key) if isinstance(key, str) else key: _mended(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item) for item in value]
    try:
        return orjson.Fragment(orjson.dumps(value, option=_OPTIONS))
    except TypeError:
        return orjson.Fragment(str(int(value))) if isinstance(value, int) else _mended(_plain(value))


def _text(value: str) -> str:
    # UTF-16 joins the surrogates that make a pair; only those that stand alone are replaced.
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
