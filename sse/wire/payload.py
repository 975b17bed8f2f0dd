"""Any Python value -> JSON, as UTF-8 bytes that fit into one `data` line.

In:  what an application yields. Out: JSON (RFC 8259) without CR or LF; from `to_ascii` a value with its texts in ASCII.

    value                                            becomes
    str, bool, None, int, float, dict, list, tuple   themselves; NaN and infinities null
    datetime, date, time                             ISO 8601
    Enum                                             its value
    dataclass                                        an object; fields that begin with "_" are left out
    pydantic model, whatever has `model_dump()`      what that returns
    other mapping; set; other collection             object; array, in order where its items have one; array
    bytes, bytearray, memoryview                     their text if they are UTF-8, otherwise base64
    exception                                        {"type", "message"}
    UUID, Decimal, Path, anything else               str(): a Decimal keeps its digits this way
    integers over 64 bits                            their digits; Limit: JavaScript and others lose the last ones
    keys that aren't str                             what the key becomes, as text
    lone surrogates                                  U+FFFD; two that make a pair, the character
    circles, too many levels, objects that raise     a text in angle brackets in their place: one odd value
      when they are looked at                          doesn't cost the rest
"""

from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from typing import Any

import orjson

from sse.errors import MissingExtra

MAX_DEPTH = 100
"""Levels of containers and objects that are followed where orjson alone did not get through."""

CIRCULAR = "<circular>"
TOO_DEEP = "<too deep>"

# Ours to do: on a tzinfo that raises and on an empty slot, orjson 3.13 ends the process with a segmentation fault.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_SPACES = bytes.maketrans(b"\r\n", b"  ")


def dumps(value: Any) -> bytes:
    """JSON for the value; see the table. Never raises because of what is in it, and never holds CR or LF."""
    try:
        json = orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:  # orjson's own errors are TypeErrors too: something in there has no JSON form as it is
        json = orjson.dumps(_rebuild(value, _repaired, ()), option=_OPTIONS)
    if 10 in json or 13 in json:  # orjson writes none, but a caller's orjson.Fragment may have them between tokens
        json = json.translate(_SPACES)
    return json


def to_ascii(value: Any) -> Any:
    """The value with every text transliterated to ASCII, keys included; dicts, lists and tuples stay what they are.

    Objects that hold text become what `dumps` would make of them. Raises MissingExtra if anyascii isn't installed.
    """
    try:
        from anyascii import anyascii
    except ImportError:
        raise MissingExtra("transliteration needs anyascii: pip install 'sidestream[ascii]'") from None

    def leaf(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, str):
            return anyascii(value)
        return value if isinstance(value, int) else _step(value, leaf, path)

    return _rebuild(value, leaf, ())


def _plain(value: Any) -> Any:
    """One step towards JSON for an object that orjson doesn't know; what it holds may need more steps."""
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _text(bytes(value))
        if isinstance(value, BaseException):
            return {"type": type(value).__name__, "message": str(value)}
        if isinstance(value, (date, time)):  # a datetime is a date
            return value.isoformat()
        if is_dataclass(value) and not isinstance(value, type):
            return {f.name: getattr(value, f.name) for f in fields(value) if not f.name.startswith("_")}
        if hasattr(type(value), "model_dump"):  # of the type: a model's class has the method too, and is no model
            return value.model_dump()
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Set):
            return _ordered(value)
        if isinstance(value, Collection):
            return list(value)
        return str(value)
    except Exception:  # the methods of other people's classes can raise anything
        return _odd(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()


def _ordered(items: Set[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, str(item)))


def _odd(value: Any) -> str:
    return f"<{type(value).__name__}>"


# From here on: values that orjson refused, and transliteration. Slower, a few Python calls an item.

_Leaf = Callable[[Any, tuple[int, ...]], Any]


def _rebuild(value: Any, leaf: _Leaf, path: tuple[int, ...]) -> Any:
    """The value, with `leaf` applied to all that is no dict, list or tuple. path: the ids of what it is inside of."""
    if id(value) in path:
        return CIRCULAR
    if len(path) >= MAX_DEPTH:
        return TOO_DEEP
    inside = (*path, id(value))
    try:
        if isinstance(value, dict):
            return {_key(key, leaf, inside): _rebuild(item, leaf, inside) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [_rebuild(item, leaf, inside) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return leaf(value, path)
    except Exception:  # as in _plain; and RecursionError, where the caller's own stack was deep already
        return _odd(value)


def _key(key: Any, leaf: _Leaf, path: tuple[int, ...]) -> Any:
    if not isinstance(key, str):
        json = orjson.dumps(_rebuild(key, _repaired, path), option=_OPTIONS).decode()
        key = orjson.loads(json) if json.startswith('"') else json
    return leaf(key, path)


def _repaired(value: Any, path: tuple[int, ...]) -> Any:
    if isinstance(value, str):
        # UTF-16 is where surrogates are at home: pairs are joined, and only those that stand alone are replaced.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(int(value)))
    return _step(value, _repaired, path)


def _step(value: Any, leaf: _Leaf, path: tuple[int, ...]) -> Any:
    if isinstance(value, Enum):
        step = value.value
    elif _is_native(value):
        return value
    else:
        step = _plain(value)
    return _rebuild(step, leaf, (*path, id(value)))


def _is_native(value: Any) -> bool:
    try:
        orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return False
    return True
