"""Fragments of tool calls -> whole calls.

A call comes in pieces: `{"index", "id", "function": {"name", "arguments"}}`, each with a part of the arguments. Servers differ
in what they repeat and what they leave out. A fragment belongs to

    with an id that is known               that call: some repeat id and name in every piece
    with an id that is new                 a new call, at a known index too: some give every call the index 0
    without id, at a known index           the last call with that index; without an index, the last call
    the same, but with another name,       a new call
      after arguments have come
    without id, at a new index             a new call; it gets an id
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handlers.chat.upstream.chunks import joined, write


@dataclass(slots=True)
class Call:
    """id, name, arguments: as in OpenAI's `tool_calls`; arguments is JSON text, if the model got it right."""

    id: str
    name: str = ""
    arguments: str = ""
    index: int | None = None

    def message(self) -> dict[str, Any]:
        """The call as an element of an assistant message's `tool_calls`."""
        function = {"name": self.name, "arguments": joined((self.arguments,))}
        return {"id": self.id, "type": "function", "function": function}


class Calls(list[Call]):
    """The calls of one stage. prefix: of the ids that have to be made up."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def feed(self, fragments: Iterable[Mapping[str, Any]]) -> None:
        for fragment in fragments:
            function = fragment.get("function") or {}
            name = function.get("name") or ""
            call = self._find(fragment.get("id"), fragment.get("index"), name)
            if name != call.name and not call.arguments:
                call.name += name
            arguments = function.get("arguments") or ""
            call.arguments += arguments if isinstance(arguments, str) else write(arguments).decode()

    def _find(self, id: str | None, index: int | None, name: str) -> Call:
        for call in reversed(self):
            if call.id == id if id else index is None or call.index == index:
                if id or not name or name == call.name or not call.arguments:
                    return call
                break
        self.append(Call(id or f"{self._prefix}{len(self)}", index=index))
        return self[-1]
