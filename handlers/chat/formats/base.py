"""A format of the chat: how a client asks, and how it is answered. A class whose defaults are the plain format.

In:  a request; then the engine's items, and how the stream ended. Out: a `ChatRequest`; then encoded events (`sse.formats`), or
an answer in one piece. Whatever is particular to one format stands in its class, in a file of its own; `routes.Chat.answering`
makes a handler of it.

Limit: an answer in one piece has OpenAI's shape in every format whose requests can ask for one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handlers.chat.items import Chunk, Item, UpstreamFailed
from handlers.chat.request import Offer, parse_own, wrong
from handlers.chat.texts import write
from sse.errors import Problem
from sse.formats import Format, Written
from sse.http import Request, Response, problem_response
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


class ChatFormat(Format):
    """Made for one answer, of the body that asks for it. request: what the body asks for. keeps: the part of
    the body that is needed when the answer has ended, as JSON can hold it.

    after_status: whether the answer's head waits for the upstream's status, so that a failure has a status of its own and the
    client tries again; otherwise a request that fails upstream is sent again, where that makes sense. beside_pending: whether
    the sidecar's tools run in a stage that calls tools of the client's too.
    """

    keeps: Any = None
    after_status = False
    beside_pending = True

    def __init__(self, body: Any, offer: Offer) -> None:
        """Raises Problem for a body that can't be used."""
        self.request = parse_own(body, offer)

    @classmethod
    async def asked(cls, request: Request, offer: Offer, limit: int, *others: type["ChatFormat"]) -> tuple["ChatFormat", bytes]:
        """The format that a request asks for: this one, or another if the body's `format` names that; and the body as JSON.

        limit: bytes of the body. Raises Problem.
        """
        body, kinds = await request.json(limit=limit), {kind.name: kind for kind in (cls, *others)}
        wish = body.get("format") if others and isinstance(body, dict) else None
        kind = cls if wish is None else kinds.get(str(wish))
        if kind is None:
            raise wrong("format", f"must be one of {', '.join(kinds)}")
        return kind(body, offer), dumps(body)

    @classmethod
    def problem(cls, problem: Problem) -> Response:
        """How an error looks."""
        return problem_response(problem)

    @classmethod
    def refused(cls, failure: UpstreamFailed) -> Response:
        """How the client is told that the upstream has failed before the answer began."""
        said = failure.said.headers if failure.said is not None else {}
        headers = {name: value for name, value in said.items() if name != "content-type"}  # they say when to try again
        return cls.problem(Problem(failure.status, failure.message, headers=headers, code=failure.code))

    def release(self) -> None:
        """The answer has ended: let go of the part of the request that was for the upstream."""
        asked = self.request
        self.request = replace(asked, messages=(), model=asked.model[:256], parameters={}, client_tools=())

    def limits(self, headers: Mapping[str, str]) -> None:
        """Take what the upstream says of its limits, for the answer's head, which waits for that."""
        self.headers = tuple((name.encode(), value.encode()) for name, value in headers.items())

    def item(self, item: Item) -> Written:
        """`{"content": …}` for each piece of text."""
        return encode_json(write({"content": item.text})) if type(item) is Chunk and item.text else b""
