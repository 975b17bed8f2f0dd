"""The plain format."""

from handlers.chat.formats.plain import Plain
from handlers.chat.items import Reasoning
from tests.support.chat import chat
from tests.support.formats import FAILURE, TOOL, a_chunk, made, one


async def test_it_is_the_text_and_nothing_else() -> None:
    async with chat(*TOOL) as c:
        written = await c.written({"tools": ["calculate"]}, Plain)
    assert written == 'data: {"content":"Ünder "}\n\ndata: {"content":"way"}\n\ndata: [DONE]\n\n'.encode()


def test_half_a_surrogate_pair_is_kept_for_the_client_to_join() -> None:
    assert made(Plain).item(a_chunk("\ud83d")) == b'data: {"content":"\\ud83d"}\n\n'


def test_what_the_model_thinks_is_no_text() -> None:
    assert made(Plain).item(Reasoning("hm")) == b""


def test_it_ends_as_a_plain_stream_does() -> None:
    assert one(made(Plain).failed(FAILURE)) == ("error", {"error": FAILURE.message, "code": "cut", "fatal": True})
    assert one(made(Plain).opening("id")) == ("connected", {"status": "ok", "stream": "id"})
