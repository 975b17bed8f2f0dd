"""The states of a stream, what ends it, and the one table of what follows: a missing row is a bug.

RUNNING ─► DONE        the source ended
        ─► CANCELLED   somebody asked · nobody watched for as long as the linger · the server shuts down
        ─► FAILED      the source raised, or its publisher vanished
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Trigger(StrEnum):
    """What ends a stream; the value is the reason that clients are told."""

    SOURCE_ENDED = "source_ended"
    SOURCE_FAILED = "source_failed"
    DELETED = "deleted"
    ABANDONED = "abandoned"  # nobody watched for as long as the linger
    SHUTTING_DOWN = "shutting_down"


_ENDS: Final = {
    Trigger.SOURCE_ENDED: State.DONE,
    Trigger.SOURCE_FAILED: State.FAILED,
    Trigger.DELETED: State.CANCELLED,
    Trigger.ABANDONED: State.CANCELLED,
    Trigger.SHUTTING_DOWN: State.CANCELLED,
}

TRANSITIONS: Final[Mapping[tuple[State, Trigger], State]] = {
    **{(State.RUNNING, trigger): state for trigger, state in _ENDS.items()},
    # Ended is ended: whatever comes later changes nothing.
    **{(state, trigger): state for state in (State.DONE, State.CANCELLED, State.FAILED) for trigger in Trigger},
}
