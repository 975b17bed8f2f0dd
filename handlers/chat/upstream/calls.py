"""Fragments of tool calls -> which call each belongs to, and whole calls.

A call comes in pieces: `{"index", "id", "function": {"name", "arguments"}}`, each with a part of the arguments. Servers differ
in what they repeat and what they leave out, so index, id, name and whether the JSON so far is complete decide together. A
fragment is compared with the last call that has its index, of several with the one that has its id too; without an index, with
the call that has its id, or else the last one:

    names                  the call so far             the fragment
    another function       has arguments               begins a call
                           has none                    belongs to it: the name comes in pieces; with a new id, or where both
                                                       are names of tools, it begins a call
    the same function      complete arguments          begins a call; without arguments, those that follow begin it
                           a part of them              belongs to it: some repeat id and name in every piece
                           none                        belongs to it; with a new id and no arguments, it begins a call
    a function             has no name                 belongs to it: a name may come late
    none                   complete, and a new id      begins a call, whose name has to follow
                           any other                   belongs to it: an id may come late, or change from piece to piece

Where the index is new, it is compared with the call that has its id, or else the last one:

    a function             the same id and name, and   belongs to it: some count every piece
                           a part of the arguments
                           any other                   begins a call, with the same id too
    none                   complete, or a new id       begins a call, whose name has to follow; if none does, it belonged to
                                                       the call before
                           any other                   belongs to it

A call has begun once its name and arguments have come; `{}` alone is no argument yet, since some begin with it. An id that is
missing or over `MAX_ID` is made up, one that is there twice is made unique.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from handlers.chat.fields import Fields, Pieces
from handlers.chat.items import Call, CallBegun, CallDelta, UpstreamFailed
from handlers.chat.texts import write

MAX_ID: Final = 16 << 10
"""Characters of an id, which some formats repeat with each piece of the arguments. Some upstreams put a signature into it."""

CALL: Final = 1024
"""Bytes of memory that a call takes, beside what it says."""

_KNOWN: Final = ("index", "id", "type", "function", "name", "arguments")


@dataclass(frozen=True, slots=True)
class _Fragment:
    """What a fragment says, in the types that it should have; None and "" for whatever else there is. fields: the rest."""

    index: int | None
    id: str
    name: str
    arguments: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "_Fragment":
        index, id, function = value.get("index"), value.get("id"), value.get("function")
        fields = {name: field for name, field in value.items() if name not in _KNOWN}
        if isinstance(function, dict):
            if rest := {name: field for name, field in function.items() if name not in ("name", "arguments")}:
                fields["function"] = rest
        else:
            function = value  # some leave a level out
        name, arguments = function.get("name"), function.get("arguments") or ""
        return cls(
            index if isinstance(index, int) else None,
            str(id) if isinstance(id, str | int) and len(str(id)) <= MAX_ID else "",
            name if isinstance(name, str) else "",
            arguments if isinstance(arguments, str) else write(arguments).decode(),
            fields,
        )


@dataclass(slots=True)
class _Growing:
    """id: as the upstream gave it. named_again: its name has come once more, after complete arguments. begun: once it has."""

    index: int
    id: str = ""
    name: str = ""
    arguments: Pieces = field(default_factory=Pieces)
    empty: bool = True
    named_again: bool = False
    begun: CallBegun | None = None
    fields: Fields = field(default_factory=Fields)
    _looked_at: int = 0
    _depth: int = 0
    _quoted: bool = False
    _rest: str = ""  # a backslash, if what was looked at ends with one whose character has not come

    @property
    def size(self) -> int:
        """Bytes of memory that its name, arguments and fields take."""
        return 4 * len(self.name) + self.arguments.size + self.fields.size

    def add(self, arguments: str) -> None:
        if self.arguments.held == ["{}"] and self.begun is None and arguments.lstrip().startswith("{"):
            self.arguments = Pieces()
            self._looked_at = 0
        if self.arguments.many:
            self.complete()
            self._looked_at = 1  # since what it has looked at is put together
        self.arguments.add(arguments)
        self.empty = self.empty and not arguments.strip()

    def complete(self) -> bool:
        """Whether the arguments are a whole object. Each character is looked at once, however often this is asked."""
        text = (self._rest + "".join(self.arguments.held[self._looked_at :])).replace("\\\\", "").replace('\\"', "")
        self._looked_at = len(self.arguments.held)
        self._rest = "\\" if text.endswith("\\") else ""
        parts = text.split('"')
        outside = "".join(parts[self._quoted :: 2])
        self._quoted ^= len(parts) % 2 == 0
        self._depth += sum(map(outside.count, "{[")) - sum(map(outside.count, "}]"))
        return not self.empty and not self._quoted and self._depth <= 0

    def begins_another(self, fragment: _Fragment, tools: Collection[str], *, known: bool) -> bool:
        """Whether the fragment begins a call, this being the one that it is compared with. known: which of the tables."""
        blank, other_id = not fragment.arguments.strip(), bool(fragment.id) and fragment.id != self.id
        new_id = other_id and bool(self.id)
        if not known:
            if fragment.name:
                piece = fragment.id and not other_id and fragment.name == self.name and not self.empty
                return not piece or self.complete()
            return other_id or (not blank and self.complete())
        if not fragment.name:
            return not blank and (new_id or self.named_again) and self.complete() and self.arguments.held != ["{}"]
        if not self.name:
            return False
        if fragment.name != self.name:
            return not self.empty or new_id or (fragment.name in tools and self.name in tools)
        if self.complete():
            self.named_again = blank and not new_id
            return not self.named_again
        return self.empty and new_id and blank


class Calls:
    """The calls of one stage. prefix: of the ids that have to be made up. tools: names that can be called, as far as known.

    taken: ids that calls have; those of this stage are added. size: bytes of memory that they take. length: characters of their
    arguments.
    """

    def __init__(self, prefix: str, tools: Collection[str] = (), taken: set[str] | None = None) -> None:
        self.size = self.length = 0
        self._prefix = prefix
        self._tools = tools
        self._taken = set() if taken is None else taken
        self._growing: list[_Growing] = []
        self._last: dict[tuple[int | None, str | None], _Growing] = {}  # by index, by id, by both, and of all

    def feed(self, fragments: Iterable[Mapping[str, Any]]) -> list[CallBegun | CallDelta]:
        """What the fragments add."""
        deltas: list[CallBegun | CallDelta] = []
        for fragment in map(_Fragment.of, fragments):
            call = self._find(fragment)
            self.size -= call.size
            self.length += len(fragment.arguments)
            if call.begun is None and fragment.name != call.name:
                whole = call.name + fragment.name
                call.name = fragment.name if fragment.name in self._tools and whole not in self._tools else whole
            if fragment.fields:
                call.fields.add(fragment.fields)
            if fragment.arguments:
                deltas += self._add(call, fragment.arguments)
            self.size += call.size
        return deltas

    def end(self) -> list[CallBegun | CallDelta]:
        """What there is to say of the calls, since nothing follows. Raises UpstreamFailed for one that has no name."""
        deltas: list[CallBegun | CallDelta] = []
        before: _Growing | None = None
        for call in self._growing:
            if call.name:
                before = call
            elif before is not None and not before.complete():
                for piece in call.arguments.held:
                    deltas += self._add(before, piece)
            elif not call.empty:
                raise UpstreamFailed("the upstream called a tool without a name", "bad_chunk")
        for call in self._growing:
            if call.name and call.begun is None:
                if call.empty:
                    call.arguments = Pieces()
                    call.arguments.add("{}")
                deltas += self._begin(call)
        return deltas

    def whole(self) -> list[Call]:
        """The calls that have begun, as far as they have come, in the order in which the model made them."""
        begun = [(call, call.begun) for call in self._growing if call.begun]
        return [Call(call.index, a.id, a.name, "".join(call.arguments.held), call.fields.whole()) for call, a in begun]

    def _add(self, call: _Growing, arguments: str) -> list[CallBegun | CallDelta]:
        call.add(arguments)
        if call.begun is not None:
            return [CallDelta(call.index, arguments)]
        return self._begin(call) if call.name and not call.empty and call.arguments.held != ["{}"] else []

    def _begin(self, call: _Growing) -> list[CallBegun | CallDelta]:
        id = call.id or f"{self._prefix}{call.index}"
        number = len(self._taken) + 1
        while id in self._taken:
            id, number = f"{call.id or self._prefix}_{number}", number + 1
        self._taken.add(id)
        call.begun = CallBegun(call.index, id, call.name)
        return [call.begun, CallDelta(call.index, "".join(call.arguments.held))]

    def _find(self, fragment: _Fragment) -> _Growing:
        """The call that the fragment belongs to, a new one if it begins one."""
        index, id, last, name = fragment.index, fragment.id, self._last, ""
        known = index is None or (index, None) in last
        at = index if known else None
        call = last.get((at, id)) or last.get((at, None))
        if call is not None and call.begins_another(fragment, self._tools, known=known):
            name = call.name if call.named_again and not fragment.name else ""
            call = None
        if call is None:
            call = last[index, None] = last[None, None] = _Growing(len(self._growing), name=name)
            self._growing.append(call)
            self.size += CALL + call.size
        if id and not call.id:
            call.id = id
            self.size += 4 * len(id)
            last[index, id] = last[None, id] = call
        return call
