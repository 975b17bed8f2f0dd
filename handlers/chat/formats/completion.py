"""An answer in one piece, for `/v1` without `stream`.

In:  an answer. Out: the upstream's own body, untouched, where no tool of the sidecar is in play; otherwise a `chat.completion`
made of all stages: one id, one message, one finish_reason, usage summed.
"""

from contextlib import aclosing
from typing import Any

from handlers.chat.engine import Answer
from handlers.chat.upstream.chunks import write
from handlers.chat.upstream.failures import Reply


async def complete(answer: Answer) -> Reply:
    """Run the answer to its end. Raises UpstreamFailed. Cancelling it closes the upstream's connection."""
    if not answer.request.own_tools:
        return await answer.complete()
    async with aclosing(answer):
        async for _ in answer:
            pass
    return Reply(200, {"content-type": "application/json"}, write(_completion(answer)))


def _completion(answer: Answer) -> dict[str, Any]:
    result = answer.result
    message: dict[str, Any] = {"role": "assistant", "content": result["text"] or None}
    if result["tool_calls"]:
        message["tool_calls"] = result["tool_calls"]
    choice = {"index": 0, "message": message, "finish_reason": result["finish_reason"]}
    head = {**answer.stages[0].head, "object": "chat.completion"}
    return {**head, "choices": [choice], "usage": result["usage"]}
