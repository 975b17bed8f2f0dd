"""A JSON document as a client sends it -> any Python value, and the memory that this takes.

In:  the bytes (RFC 8259). Out: the value, with all digits of an integer; or ValueError, whose text goes on "The document …".

    limit         because
    MAX_VALUES    `[]` takes 36 times as many bytes as an object, and the event loop waits while they are made
    MAX_LEVELS    what has more can't be written again: orjson reads 1,024 levels and writes 254

Values are counted before anything is made of them. Names of members count as values; what stands in texts doesn't.
Limit: a number over 1.8e308 is refused, as orjson does.
"""

import gc
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

MAX_VALUES: Final = 100_000
MAX_LEVELS: Final = 254

MANY: Final = 1000
"""Values of which more are made without garbage collections (in 100,000 lists there would be 140, which find nothing and take
20 ms), and are looked through only where the document has digits enough."""

VALUE: Final = 128
"""Bytes that an object takes at the most, beside its text, with its place in what holds it."""

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
"""An integer over 64 bits has as many digits or more."""


def loads(document: bytes, charge: Callable[[int], object] = lambda _: None) -> Any:
    """The value. charge: told the bytes that it takes at the most, before it is made. Raises ValueError."""
    *_, value = steps(document, charge)
    return value


def steps(document: bytes, charge: Callable[[int], object] = lambda _: None, limit: int = MAX_VALUES) -> Iterator[Any]:
    """The same in steps, between which others may work; the last one yields the value. limit: values that it may have.

    Of 16 MiB in which there is little but text a step takes 24 ms; the longest one that was found takes 60 (10 MiB of emoji).
    """
    count = _marks(document)
    if count > limit:
        yield None
        count = _values(document, limit)
    if count > limit:
        raise ValueError(f"has more than {limit} values")
    charge(weight(document, count))
    yield None
    value = _made(document, count)
    if count > MANY:
        yield None
        if _LONG not in document.translate(_DIGITS):
            yield value
            return
    yield json.loads(document) if _has_large_float(value) else value  # as that, orjson reads an integer over 64 bits


def _made(document: bytes, count: int) -> Any:
    paused = count > MANY and gc.isenabled()
    if paused:
        gc.disable()
    try:
        value = orjson.loads(document)
        if count > MAX_LEVELS and _count(document, b"[{") > MAX_LEVELS:
            orjson.dumps(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except orjson.JSONEncodeError:
        raise ValueError(f"has more than {MAX_LEVELS} levels") from None
    finally:
        if paused:
            gc.enable()
    return value


def _has_large_float(value: Any) -> bool:
    """Whether a number in it may have been an integer over 64 bits."""
    if isinstance(value, dict):
        return any(map(_has_large_float, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_float, value))
    return isinstance(value, float) and abs(value) >= 2.0**63


def values(document: bytes) -> int:
    """How many values and names it has at the most; a list or object that is empty counts as two."""
    count = _marks(document)
    return count if count <= MAX_VALUES else _values(document, MAX_VALUES)


def too_many(document: bytes) -> bool:
    """Whether it has more than `MAX_VALUES`."""
    return len(document) > MAX_VALUES and values(document) > MAX_VALUES


def _marks(document: bytes) -> int:
    """`values`, with what stands in texts."""
    return 1 + _count(document, b",:[{")


def _values(document: bytes, limit: int) -> int:
    if 0x5C in document:
        document = document.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = document.count(b'"') // 2  # the quotes that are left begin and end texts
    return texts if texts > limit else _marks(b"".join(document.split(b'"')[::2]))


def weight(document: bytes, count: int | None = None) -> int:
    """Bytes that its value takes at the most. count: of its `values`, if known.

    A byte of a text becomes 1, 2 or 4 (PEP 393), of which orjson keeps the UTF-8 besides unless it is all ASCII.
    """
    ascii = document.isascii()
    wide = (0x5C in document and b"\\u" in document) or (not ascii and any(lead in document for lead in range(0xF0, 0xF5)))
    return (values(document) if count is None else count) * VALUE + len(document) * (5 if wide else 1 if ascii else 3)


def _count(document: bytes, chars: bytes) -> int:
    return len(document) - len(document.translate(None, chars))  # several times as fast as bytes.count
