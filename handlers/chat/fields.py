"""Fragments of a JSON object -> the whole object, by the rules of servers that stream an object in pieces.

    texts             joined, but those that name something (`type`, `id`, a signature): the last one
    objects           their fields, each by this table
    lists             an entry with an `index` belongs to the entry with the same one; without an index, the first entry of a
                      list goes on with the last one so far where both are pieces of a text of the same type; others are new
    anything else     the last one, null counting for nothing

Fragments are put together now and then, and when the object is asked for: a fragment of four characters takes sixty bytes, and
more where it stands in an object. What a long answer costs is its text, in memory, and time that grows as that does.
"""

from collections.abc import Callable, Iterable, Mapping
from sys import getsizeof
from typing import Any, Final

from handlers.chat.texts import joined

_NAMES: Final = ("type", "id", "index", "format", "role", "object")
_TEXTS: Final = ("text", "thinking", "summary")

MANY: Final = 64
"""Pieces that are put together, the first time. Each further time they are a sixteenth more, or twice as many if that saved
little: so the work grows as the pieces do."""

SLOT: Final = 8
"""Bytes of memory that a piece takes in its list."""

FIELD: Final = 256
"""Bytes of memory that a field takes, beside its name and its pieces."""

Join = Callable[[Iterable[str]], str]


class Pieces:
    """The pieces of one value, in their order. name: of the field that it stands in.

    held: those that are not put together yet, behind those that are. size: bytes of memory that they take.
    """

    __slots__ = ("_most", "_name", "_together", "held", "size")

    def __init__(self, name: str = "") -> None:
        self.held: list[Any] = []
        self.size = 0
        self._name = name
        self._most = MANY
        self._together = 0  # bytes of what was put together

    @property
    def many(self) -> bool:
        """Whether `add` will put together what is held."""
        return len(self.held) >= self._most

    def add(self, piece: Any) -> None:
        if len(self.held) >= self._most:
            self.held = [whole(self.held, self._name, "".join)]  # half a surrogate pair stays: the other may follow
            size = footprint(self.held[0])
            little = 2 * (self.size - size) < self.size - self._together
            self._most += self._most if little else self._most // 16
            self._together = self.size = size
        self.held.append(piece)
        self.size += SLOT + (getsizeof(piece) if type(piece) is str else footprint(piece))

    def whole(self) -> Any:
        """The value so far; a text that is empty if there are no pieces."""
        return whole(self.held, self._name) if self.held else ""


class Fields:
    """The fields of one object. size: bytes of memory that they take."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: dict[str, Pieces] = {}

    def add(self, fragment: Mapping[str, Any]) -> None:
        for name, piece in fragment.items():
            if piece is not None:
                if (pieces := self._pieces.get(name)) is None:
                    pieces = self._pieces[name] = Pieces(name)
                    self.size += FIELD + len(name)
                self.size -= pieces.size
                pieces.add(piece)
                self.size += pieces.size

    def whole(self) -> dict[str, Any]:
        """The object so far."""
        return {name: pieces.whole() for name, pieces in self._pieces.items()}


def whole(pieces: list[Any], name: str = "", join: Join = joined) -> Any:
    """The value that the pieces make together; there is at least one. name: of the field. join: puts texts together."""
    last = pieces[-1]
    if name in _NAMES or name.endswith("signature") or not all(isinstance(piece, type(last)) for piece in pieces):
        return last
    if isinstance(last, str):
        return join(pieces)
    if isinstance(last, dict):
        fields: dict[str, list[Any]] = {}
        for piece in pieces:
            for field, value in piece.items():
                if value is not None:
                    fields.setdefault(field, []).append(value)
        return {field: whole(values, field, join) for field, values in fields.items()}
    return _entries(pieces, join) if isinstance(last, list) else last


def _entries(lists: list[list[Any]], join: Join) -> list[Any]:
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
    return [whole(entry, join=join) for entry in entries]


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
