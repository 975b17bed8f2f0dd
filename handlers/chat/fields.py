"""Fragments of a JSON object -> the whole object, by the rules of servers that stream an object in pieces.

    texts             joined, but those that name something (`type`, `id`, a signature): the last one
    objects           their fields, each by this table
    lists             an entry with an `index` belongs to the entry with the same one; without an index, the first entry of a
                      list goes on with the last one so far where both are pieces of a text of the same type; others are new
    anything else     the last one, null counting for nothing

Fragments are put together when the object is asked for, so that a long text costs no more than its pieces.
"""

from collections.abc import Mapping
from sys import getsizeof
from typing import Any, Final

from handlers.chat.texts import joined

_NAMES: Final = ("type", "id", "index", "format", "role", "object")
_TEXTS: Final = ("text", "thinking", "summary")


class Fields:
    """The fields of one object."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Any]] = {}

    def add(self, fragment: Mapping[str, Any]) -> None:
        for name, piece in fragment.items():
            if piece is not None:
                self._pieces.setdefault(name, []).append(piece)

    def whole(self) -> dict[str, Any]:
        """The object so far."""
        return {name: whole(pieces, name) for name, pieces in self._pieces.items()}


def whole(pieces: list[Any], name: str = "") -> Any:
    """The value that the pieces make together; there is at least one. name: of the field."""
    last = pieces[-1]
    if name in _NAMES or name.endswith("signature") or not all(isinstance(piece, type(last)) for piece in pieces):
        return last
    if isinstance(last, str):
        return joined(pieces)
    if isinstance(last, dict):
        fields = Fields()
        for piece in pieces:
            fields.add(piece)
        return fields.whole()
    return _entries(pieces) if isinstance(last, list) else last


def _entries(lists: list[list[Any]]) -> list[Any]:
    entries: list[list[Any]] = []  # of each, its pieces
    by_index: dict[int, list[Any]] = {}
    for pieces in lists:
        for number, piece in enumerate(pieces):
            index = _index(piece)
            if index in by_index:
                entry = by_index[index]
            elif index is None and number == 0 and entries and _goes_on(entries[-1][-1], piece):
                entry = entries[-1]
            else:
                entries.append(entry := [])
            entry.append(piece)
            if index is not None:
                by_index[index] = entry
    return [whole(entry) for entry in entries]


def _index(entry: Any) -> int | None:
    index = entry.get("index") if isinstance(entry, dict) else None
    return index if isinstance(index, int) else None


def _goes_on(last: Any, piece: Any) -> bool:
    """Whether two pieces belong to one text. A signature closes it."""
    if not isinstance(last, dict) or not isinstance(piece, dict) or last.get("type") != piece.get("type"):
        return False
    return any(name in last and name in piece for name in _TEXTS) and not last.get("signature")


def footprint(value: Any) -> int:
    """Bytes of memory that a value which was parsed takes, with all that it holds."""
    size = getsizeof(value)
    if isinstance(value, dict):
        return size + sum(map(footprint, value)) + sum(map(footprint, value.values()))
    return size + sum(map(footprint, value)) if isinstance(value, list) else size


class Numbered:
    """The fields of several messages as if they were one: the entries of a list that have an `index` are numbered on."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}  # of each list: how many entries the messages before had
        self._next: dict[str, int] = {}

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a message, or of a fragment of it, with their new indexes."""
        return {
            name: [self._entry(name, entry) for entry in value] if isinstance(value, list) else value
            for name, value in fields.items()
        }

    def end(self) -> None:
        """The message has ended."""
        self._before = dict(self._next)

    def _entry(self, name: str, entry: Any) -> Any:
        if (index := _index(entry)) is None:
            return entry
        index += self._before.get(name, 0)
        self._next[name] = max(self._next.get(name, 0), index + 1)
        return {**entry, "index": index}
