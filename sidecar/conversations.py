"""Conversations: a caller's key, such as a chat's id, for the answer that runs in that chat.

In:  a key, and a request that would open a stream. Out: the stream that has the key, or None where the request may open one.

    the conversation's stream     a request with its key
    none                          opens a stream
    runs                          409; the same request again joins it; with `replace` it is ended, and a stream is opened
    has ended, and is held        opens a stream; the same run again (`run`) gets the ended stream

The backend holds the keys, so that among all processes one stream at a time has a key. A key is forgotten with its stream. Keys
can be guessed, and so a request that finds or stops a stream by one needs the token. If X-Forwarded-User names the user, the
same key of two users means two conversations.
"""

import hashlib
from typing import NamedTuple

from sse.errors import Problem
from sse.http import Request
from sse.store import Holder, Store
from sse.stream import State, Stream, Trigger

MAX_KEY = 256
"""Characters of a key."""


class Conversation(NamedTuple):
    """key: not empty. run: the caller's name for its request, if it has one. replace: whether to end the stream that runs."""

    key: str
    run: str = ""
    replace: bool = False


def claim_of(request: Request, key: str) -> str:
    """The key of a conversation at the backend."""
    return digest("conversation", request.header(b"x-forwarded-user") or "", key)


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()


async def find(store: Store, request: Request, key: str) -> Stream | None:
    """The stream of a conversation."""
    holder = await store.backend.holder(claim_of(request, key))
    return await store.find(holder.stream_id) if holder is not None else None


async def join(store: Store, request: Request, conversation: Conversation, holder: Holder) -> tuple[str, Holder, Stream | None]:
    """The conversation's key at the backend, its holder, and the stream that the request joins.

    None: the holder has the conversation, and may open its stream. Raises Problem 409.
    """
    claim, instead_of = claim_of(request, conversation.key), ""
    if conversation.run:
        holder = Holder(holder.stream_id, digest("run", conversation.run))
    while (held := await store.backend.claim(claim, holder, instead_of)).stream_id != holder.stream_id:
        stream = await store.find(held.stream_id)
        if stream is None:
            raise Problem(409, "A stream is just being opened in this conversation.", headers={"retry-after": "1"})
        running = stream.state is State.RUNNING
        if held.digest == holder.digest and (running or conversation.run):
            return claim, holder, stream
        if running and not conversation.replace:
            raise Problem(409, "An answer is running in this conversation.", code="conversation_busy")
        await store.end(stream, Trigger.REPLACED)
        instead_of = stream.id
    return claim, holder, None
