"""Fragments of tool calls -> which call each belongs to, and whole calls.

A call comes in pieces: `{"index", "id", "function": {"name", "arguments"}}`, each with a part of the arguments. Servers differ
in what they repeat and what they leave out. A fragment belongs to

    with an id that is known               that call: some repeat id and name in every piece
    with an id that is new                 a new call, at a known index too: some give every call the index 0
    without id, at a known index           the last call with that index; without an index, the last call
    the same, but with another name,       a new call
      after arguments have come
    without id, at a new index             a new call; it gets an id

A call has begun once arguments have come, since its name may come in pieces before; or at the end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.chat.items import Call, CallBegun, CallDelta
from handlers.chat.texts import write


@dataclass(slots=True)
class _Growing:
    """index: the upstream's. begun: the call's own, None until it has begun."""

    id: str
    index: int | None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    begun: int | None = None


class Calls:
    """The calls of one stage. prefix: of the ids that have to be made up."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._growing: list[_Growing] = []
        self._begun: list[_Growing] = []

    def feed(self, fragments: Iterable[Mapping[str, Any]]) -> list[CallBegun | CallDelta]:
        """What the fragments add."""
        deltas: list[CallBegun | CallDelta] = []
        for fragment in fragments:
            function = fragment.get("function") or {}
            name = function.get("name") or ""
            call = self._find(fragment.get("id"), fragment.get("index"), name)
            if name != call.name and not call.arguments:
                call.name += name
            arguments = function.get("arguments") or ""
            if not isinstance(arguments, str):
                arguments = write(arguments).decode()
            if arguments:
                call.arguments.append(arguments)
                deltas += self._begin(call)
                deltas.append(CallDelta(call.begun or 0, arguments))
        return deltas

    def end(self) -> list[CallBegun]:
        """The calls that begin now, since nothing follows."""
        return [begun for call in self._growing for begun in self._begin(call)]

    def whole(self) -> list[Call]:
        """The calls that have begun, as far as they have come."""
        return [Call(index, call.id, call.name, "".join(call.arguments)) for index, call in enumerate(self._begun)]

    def _begin(self, call: _Growing) -> list[CallBegun]:
        if call.begun is not None:
            return []
        call.begun = len(self._begun)
        self._begun.append(call)
        return [CallBegun(call.begun, call.id, call.name)]

    def _find(self, id: str | None, index: int | None, name: str) -> _Growing:
        for call in reversed(self._growing):
            if call.id == id if id else index is None or call.index == index:
                if id or not name or name == call.name or not call.arguments:
                    return call
                break
        self._growing.append(_Growing(id or f"{self._prefix}{len(self._growing)}", index))
        return self._growing[-1]
