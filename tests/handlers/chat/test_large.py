"""What is large and ordinary passes, with the settings as they are: nothing of this is an attack."""

from typing import Any

import openai
import pytest

from sidecar.settings import Settings
from tests.support.chatting import V1, named, sidecar
from tests.support.upstream import DONE, call, chunk, chunk_object, event, finish, reply

IMAGE = "data:image/png;base64," + "A" * 5_592_408
"""4 MiB of a picture."""

HELLO = reply(chunk("Hi"), finish(), DONE)
ANSWER = 128_000
"""Tokens of the longest answers of today's models."""


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def ui(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "messages": [{"role": "user", "parts": [*parts]}]}


def run_of(content: Any) -> dict[str, Any]:
    messages = [{"id": "1", "role": "user", "content": content}]
    return {"threadId": "t", "runId": "r", "state": {}, "messages": messages, "tools": [], "context": []}


PHOTO = "A" * 1_398_104  # 1 MiB
URL = f"data:image/jpeg;base64,{PHOTO}"
PROMPT = 'A line of it.\n\t"Another"\n' * 200_000
PHOTOS: dict[str, tuple[str, Any]] = {
    "typed": ("/chat", {"messages": user([{"type": "image_url", "image_url": {"url": URL}}] * 10)}),
    "openai": (V1, {"messages": user([{"type": "image_url", "image_url": {"url": URL}}] * 10), "stream": True}),
    "responses": ("/v1/responses", {"input": user([{"type": "input_image", "image_url": URL}] * 10)}),
    "ui-messages": ("/ui/chat", ui(*[{"type": "file", "mediaType": "image/jpeg", "url": URL}] * 10)),
    "ag-ui": ("/ag-ui", run_of([{"type": "image", "source": {"type": "data", "mimeType": "image/jpeg", "value": PHOTO}}] * 10)),
}
PROMPTS: dict[str, tuple[str, Any]] = {
    "typed": ("/chat", {"prompt": PROMPT}),
    "openai": (V1, {"messages": user(PROMPT)}),
    "responses": ("/v1/responses", {"input": PROMPT}),
    "ui-messages": ("/ui/chat", ui({"type": "text", "text": PROMPT})),
    "ag-ui": ("/ag-ui", run_of(PROMPT)),
}


@pytest.mark.parametrize(("path", "body"), PHOTOS.values(), ids=PHOTOS)
async def test_ten_photos_reach_the_model(path: str, body: Any) -> None:
    async with sidecar(HELLO) as s:
        assert (await s.post(body, path)).status == 200
        (message,) = [message for message in s.upstream.requests[0].body["messages"] if message["role"] == "user"]
        assert [part["image_url"]["url"] for part in message["content"]] == [URL] * 10


@pytest.mark.parametrize(("path", "body"), PROMPTS.values(), ids=PROMPTS)
async def test_a_prompt_of_a_million_tokens_reaches_the_model(path: str, body: Any) -> None:
    async with sidecar(HELLO) as s:
        assert (await s.post(body, path)).status == 200
        assert s.upstream.requests[0].body["messages"][-1]["content"] == PROMPT


@pytest.mark.parametrize("path", ["/chat", V1])
async def test_a_picture_that_the_model_makes_arrives(path: str) -> None:
    picture = event(chunk_object({"images": [{"type": "image_url", "image_url": {"url": IMAGE}}]}))
    async with sidecar(reply(picture, finish(), DONE)) as s:
        answer = await s.post({"messages": user("Draw."), "stream": True}, path)
        chunks = [payload.get("chunk", payload) for _, payload in named(answer) if payload != "[DONE]"]
    pictures = [choice["delta"].get("images") for one in chunks for choice in one.get("choices", ())]
    assert [made[0]["image_url"]["url"] for made in pictures if made] == [IMAGE]


async def test_an_agent_of_thirty_stages_comes_to_its_end() -> None:
    stages = [reply(call("calculate", '{"expression": "6*7"}', id=f"c{n}"), finish("tool_calls"), DONE) for n in range(30)]
    async with sidecar(*stages, HELLO) as s:
        answer = await s.post({"prompt": "Go.", "tools": ["calculate"]})
        assert s.asked == 31
    assert named(answer)[-1][1]["finish_reason"] == "stop"


async def test_an_agent_of_a_thousand_calls_is_answered() -> None:
    messages: list[dict[str, Any]] = user("Go.")
    for number in range(1000):
        made = {"id": f"c{number}", "type": "function", "function": {"name": "read", "arguments": '{"path": "a.py"}'}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        messages.append({"role": "tool", "tool_call_id": made["id"], "content": "x = 1\n" * 100})
    async with sidecar(HELLO) as s:
        assert (await s.post({"messages": messages}, V1)).status == 200
        assert len(s.upstream.requests[0].body["messages"]) == 2001


async def test_a_conversation_with_tables_from_tools_is_answered() -> None:
    table = [{f"column {number}": number if number % 2 else f"value {row}" for number in range(20)} for row in range(1000)]
    made = {"type": "tool-query", "toolCallId": "c", "state": "output-available", "input": {}, "output": table}
    said = [{"role": "user", "parts": [{"type": "text", "text": "Go."}]}, {"role": "assistant", "parts": [made]}]
    async with sidecar(HELLO) as s:
        assert (await s.post({"id": "c", "messages": [*said * 5, said[0]]}, "/ui/chat")).status == 200


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), [("/chat", {"prompt": "Go."}), ("/ui/chat", ui({"type": "text", "text": "Go."}))])
async def test_a_page_that_comes_back_gets_the_longest_answer_from_its_beginning(path: str, body: Any) -> None:
    async with sidecar(reply(*[chunk("word") * 100] * (ANSWER // 100), finish(), DONE)) as s:
        first = await s.post(body, path)
        again = await s.get(first.headers["location"].removeprefix("http://127.0.0.1:8090"))
    assert [e.data for e in again.events] == [e.data for e in first.events]
    assert len(again.events) > ANSWER


def test_a_client_gives_up_before_the_sidecar_does() -> None:
    """Models think for ten minutes, or say for as long nothing of an answer in one piece."""
    timeout = openai.DEFAULT_TIMEOUT.read
    assert timeout is not None
    assert min(Settings().first_token_timeout, Settings().upstream_timeout) > timeout
