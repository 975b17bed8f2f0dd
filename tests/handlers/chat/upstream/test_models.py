"""What a list of models says, in the shapes in which servers list them."""

import json

import pytest

from handlers.chat.items import UpstreamFailed
from handlers.chat.upstream.models import first, listed

MODEL = {"id": "a/b", "x": 1}
LISTS = {
    "OpenAI": {"object": "list", "data": [MODEL]},
    "a list alone": [MODEL],
    "models": {"models": [MODEL]},
    "between what is none": {"data": [5, None, {"id": 5}, {"id": ""}, MODEL]},
}
NO_LISTS = {"empty": {"data": []}, "an empty list": [], "null": {"data": None}, "a text": "x", "an object": {"data": {"a": 1}}}


@pytest.mark.parametrize("value", LISTS.values(), ids=LISTS.keys())
def test_a_model_is_found_by_its_id(value: object) -> None:
    assert listed(json.dumps(value).encode()) == {"a/b": MODEL}


def test_some_have_a_name_alone() -> None:
    assert first(b'{"models": [{"name": "a"}]}') == "a"


@pytest.mark.parametrize("body", [*(json.dumps(value).encode() for value in NO_LISTS.values()), b"<html>"])
def test_without_any_model_the_request_has_to_name_one(body: bytes) -> None:
    assert listed(body) == {}
    with pytest.raises(UpstreamFailed, match="name one") as caught:
        first(body)
    assert caught.value.code == "model_not_found"


CHOSEN: dict[str, tuple[list[str], str]] = {
    "an embedding": (["text-embedding-3-small", "gpt"], "gpt"),
    "others that can't chat": (["nomic-embed-text", "whisper-1", "tts-1", "gpt-4o-mini-tts", "bge-reranker-v2", "gpt"], "gpt"),
    "and more": (["dall-e-3", "omni-moderation-latest", "stable-diffusion-xl", "bge-m3", "gpt-image-1", "gpt"], "gpt"),
    "names that only look like it": (["mattstts", "gpt"], "mattstts"),
    "nothing that can": (["text-embedding-3-small", "whisper-1"], "text-embedding-3-small"),
}


@pytest.mark.parametrize(("ids", "chosen"), CHOSEN.values(), ids=CHOSEN.keys())
def test_a_model_that_can_not_chat_is_not_chosen_first(ids: list[str], chosen: str) -> None:
    assert first(json.dumps({"data": [{"id": id} for id in ids]}).encode()) == chosen
