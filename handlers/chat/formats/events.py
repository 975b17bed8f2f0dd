"""The typed format's events, for those who write a client: what stands in `data` under each event name.

    event                    payload               when
    chat_completion_chunk    ChatCompletionChunk   each chunk of the model's answer
    tool_completion_chunk    ToolCompletionChunk   each tool of the sidecar's, as it finishes
    tool_summary             ToolSummary           once all of a stage's tools have finished
    done                     Done                  at the end of each stage; with `final` true it is the terminal event
    cancel                   Cancel                terminal: somebody stopped it
    error                    Error                 terminal: it failed; what had arrived stays delivered
    gap                      Gap                   events in between are no longer held
    item_error               ItemError             one event could not be written; the rest goes on

A stage is one request to the model. Stages are numbered from 1, and every payload says with `stage_id` which one it is of.
What is called "chunk" here is OpenAI's `chat.completion.chunk` object. Nothing but `typing` is imported.
"""

from typing import Any, Literal, NotRequired, TypedDict


class ChatCompletionChunk(TypedDict):
    """chunk: the object as the upstream wrote it, fields that nobody knows included."""

    stage_id: int
    chunk: dict[str, Any]


class ToolCompletionChunk(TypedDict):
    """tool_results: a `chat.completion.chunk` whose one choice has the delta of a `ToolDelta`."""

    stage_id: int
    tool_results: dict[str, Any]


class ToolDelta(TypedDict):
    """One tool's result, as the model will see it. tool_call_id: the call that it answers. name: the tool's."""

    role: Literal["tool"]
    tool_call_id: str
    name: str
    content: str


class ToolCall(TypedDict):
    """A call of one of the sidecar's tools.

    arguments: as an object; as the model's own text where that isn't a JSON object. ok: whether the tool returned.
    duration_ms: milliseconds, waiting for a free place included. result: any JSON, if ok. error: a sentence, if not.
    """

    id: str
    name: str
    arguments: dict[str, Any] | str
    ok: bool
    duration_ms: float
    result: NotRequired[Any]
    error: NotRequired[str]


class Calls(TypedDict):
    """calls: in the order in which the model made them."""

    calls: list[ToolCall]


class ToolSummary(TypedDict):
    stage_id: int
    tool_summary: Calls


class PendingCall(TypedDict):
    """A call of one of the client's own tools. arguments: the model's text, usually a JSON object."""

    id: str
    name: str
    arguments: str


class Done(TypedDict):
    """The end of a stage.

    finish_reason: the upstream's; "length" if calls of the sidecar's tools are left over because of `max_stages`; where the
    upstream gave none, "tool_calls" after calls and otherwise "stop".
    usage: the upstream's token counts for this stage, None where it gave none. final: no stage follows.
    pending: calls that the client has to run before it asks again; absent if there are none.
    """

    stage_id: int
    finish_reason: str
    usage: dict[str, Any] | None
    final: bool
    pending: NotRequired[list[PendingCall]]


class Cancel(TypedDict):
    """reason: "deleted", "abandoned" (nobody watched), or "shutting_down"."""

    stage_id: int
    reason: str


class Error(TypedDict):
    """error: for people. code: see `failures`; also "internal". retryable: the same request may succeed later."""

    stage_id: int
    error: str
    code: str
    retryable: bool


class Gap(TypedDict):
    """first, last: numbers of the events that are missing, both included."""

    stage_id: int
    first: int
    last: int


class ItemError(TypedDict):
    stage_id: int
    error: str


class StageResult(TypedDict):
    """One stage of a `Result`. calls: of the sidecar's tools, as in its `tool_summary`. Fields as in `Done`."""

    stage_id: int
    text: str
    calls: list[ToolCall]
    finish_reason: str | None
    usage: dict[str, Any] | None


class Result(TypedDict):
    """`result` of a stream's state: the answer so far, and for as long as the stream is kept.

    text: of all stages. tool_calls: calls that the client has to run, in OpenAI's shape. finish_reason: None until the end.
    usage: summed over the stages, None if the upstream gave none.
    """

    text: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str | None
    usage: dict[str, Any] | None
    stages: list[StageResult]
