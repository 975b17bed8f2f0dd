"""The account of memory: one budget, to which everything is charged that grows with what others send or ask for.

    charged                                        from                  until
    an event, and EVENT                            it is appended        it is dropped
    a stream, with its metadata and its result     it is opened          it is forgotten
    a request's body, and what is made of it       it arrives            the answer has ended
    an answer that is sent in slices               it is made            it is sent

Events can be dropped, so they are never refused: over the limit, room is made (`sse.store`). Everything else gets Full where
there is no room, and has seven eighths of the limit at the most: the rest is for events.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from sse.errors import Full

EVENT = 96
"""Bytes that an event in a log takes beside its own, measured."""


@dataclass(slots=True, eq=False)
class Budget:
    """What all may hold together: `limit` bytes. used: all that is held. charged: how much of that is charges.

    events, bytes: what each log may hold. mark: above this, `used` means that room is to be made. relieve: makes room for so
    many bytes more, as far as it can.
    """

    limit: int = sys.maxsize
    relieve: Callable[[int], None] = lambda _: None
    events: int = 65536
    bytes: int = 16 << 20
    used: int = field(default=0, init=False)
    charged: int = field(default=0, init=False)
    mark: int = field(init=False)
    _vain: bool = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Something may be dropped now that could not be dropped before."""
        self.mark = self.limit
        self._vain = False  # whether room was to be made, and there was none

    def fits(self, size: int) -> bool:
        """Whether there is room for a charge of `size` bytes."""
        return self.used + size <= self.limit and self.charged + size <= self.limit * 7 // 8

    def room(self, size: int = 0) -> bool:
        """The same, after room was made if it is needed.

        An attempt in vain is not repeated before another 64th of the limit is used, or until `renew`: so a byte costs the same
        however many streams there are.
        """
        if self.used > self.mark or not (self._vain or self.fits(size)):
            self.relieve(size)
            self._vain = not self.fits(size)
            self.mark = max(self.limit, self.used + self.limit // 64)
        return self.fits(size)


class Charge:
    """Bytes that are charged to a budget for as long as this lives: what they are for holds it, and is freed with it."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def add(self, size: int) -> None:
        """Charge `size` bytes more, or fewer if it is negative, whether there is room or not."""
        self.size += size
        self._budget.used += size
        self._budget.charged += size

    def claim(self, size: int) -> None:
        """The same if there is room. Raises Full."""
        if size > 0 and not self._budget.room(size):
            raise Full("memory")
        self.add(size)

    def clear(self) -> None:
        """Give it all back."""
        self.add(-self.size)

    __del__ = clear
