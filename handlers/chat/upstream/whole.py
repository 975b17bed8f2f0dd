"""An upstream's answer in one piece -> the same, untouched; or one made of the event stream that came instead."""

from handlers.chat.items import Whole
from handlers.chat.texts import joined, write
from handlers.chat.upstream.body import Body
from handlers.chat.upstream.failures import read
from handlers.chat.upstream.message import Message


def checked(answer: Whole, *, several: bool = False) -> Whole:
    """The answer, if it is one. An object that says no error is the client's to judge. Raises UpstreamFailed."""
    body, message = Body(several=several), Message()
    chunks = [*body.feed(answer.body), *body.end()]
    own = body.failure is not None and body.failure.code in ("not_a_stream", "bad_chunk")
    if body.failure is not None and not (own and body.held is not None and isinstance(read(answer.body), dict)):
        raise body.failure
    if body.held is not None:
        return answer
    for chunk in chunks:
        message.add(chunk)
    message.end()
    calls = message.calls()
    said = {**message.value(calls), "content": joined(message.texts) or None}
    reason = message.finish_reason or ("tool_calls" if calls else "stop")
    choice = {"index": 0, "message": said, "finish_reason": reason}
    made = write({**message.head, "object": "chat.completion", "choices": [choice], "usage": message.usage})
    return Whole(200, made, {**answer.headers, "content-type": "application/json"})
