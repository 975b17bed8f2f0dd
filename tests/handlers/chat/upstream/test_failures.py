"""What an upstream says of an error, in the shapes in which servers say it."""

import json
from typing import Any

import pytest

from handlers.chat.items import Whole
from handlers.chat.upstream.failures import MAX_SAID, from_answer, one_line, says_error, sentence

SENTENCES: dict[str, Any] = {
    "OpenAI": {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    "a text": {"error": "Slow down."},
    "twice": {"error": {"error": {"message": "Slow down."}}},
    "vLLM, Mistral": {"object": "error", "message": "Slow down.", "type": "x", "code": 400},
    "DashScope": {"code": "Throttling", "message": "Slow down."},
    "FastAPI": {"detail": "Slow down."},
    "FastAPI, a list": {"detail": [{"loc": ["body"], "msg": "Slow down."}]},
    "Gemini": [{"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}}],
    "Anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "Slow down."}},
    "OAuth": {"error": "slow", "error_description": "Slow down."},
    "problem document": {"type": "about:blank", "title": "Slow down.", "status": 429},
    "MiniMax": {"error_message": "Slow down.", "error_code": 1},
    "an object in the message": {"error": {"message": {"detail": "Slow down."}}},
}


@pytest.mark.parametrize("value", SENTENCES.values(), ids=SENTENCES.keys())
def test_the_sentence_is_found(value: Any) -> None:
    assert sentence(value) == "Slow down."
    assert says_error(value) or "title" in value


@pytest.mark.parametrize(
    "value", [None, 5, "x", [], {}, {"message": "wait"}, {"code": 0, "message": "success"}, {"error": None}]
)
def test_what_says_no_error(value: Any) -> None:
    assert not says_error(value)


@pytest.mark.parametrize("value", [{}, [], {"error": {}}, {"error": True}, None], ids=repr)
def test_there_may_be_no_sentence(value: Any) -> None:
    assert sentence(value) == ""


def test_what_is_nested_without_end_is_looked_at_no_deeper() -> None:
    value: Any = "Slow down."
    for _ in range(500):
        value = {"error": value}
    assert sentence(value) == ""


def test_a_sentence_has_an_end() -> None:
    assert len(sentence({"message": "x" * 10_000})) == 500


@pytest.mark.parametrize(
    "body",
    [b"Bad  Gateway\n", b"<html><style>a{}</style><h1>Bad</h1><p>Gateway</html>", b"<script>x()</script>Bad\r\nGateway"],
)
def test_a_page_is_one_line_of_text(body: bytes) -> None:
    assert one_line(body) == "Bad Gateway"


@pytest.mark.parametrize("body", [b"<" * MAX_SAID, b"<a " * (MAX_SAID // 3), b"<script>" * (MAX_SAID // 8)])
def test_a_page_without_end_takes_no_time(body: bytes) -> None:
    assert len(one_line(body)) <= 500


def answer(status: int, body: Any) -> Whole:
    return Whole(status, body if isinstance(body, bytes) else json.dumps(body).encode())


CODES: dict[str, tuple[int, Any, str]] = {
    "a key": (401, {"error": "wrong key"}, "refused"),
    "a ban": (403, {"error": "wrong region"}, "refused"),
    "too much": (429, {"error": "Slow down."}, "rate_limited"),
    "a model": (404, {"error": {"message": "The model `x` does not exist"}}, "model_not_found"),
    "a model, vLLM": (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, "model_not_found"),
    "a model, Ollama": (404, {"error": {"message": 'model "x" not found, try pulling it first'}}, "model_not_found"),
    "a model, DeepSeek": (400, {"error": {"message": "Model Not Exist"}}, "model_not_found"),
    "a model, LiteLLM": (400, {"error": {"message": "Invalid model name passed in model=x"}}, "model_not_found"),
    "a model, OpenRouter": (400, {"error": {"message": "x is not a valid model ID"}}, "model_not_found"),
    "a model, by its code": (400, {"error": {"message": "no", "code": "model_not_found"}}, "model_not_found"),
    "a path": (404, {"detail": "Not Found"}, "bad_request"),
    "a path, html": (404, b"<h1>model not found</h1>", "bad_request"),
    "a parameter": (400, {"error": {"message": "bad temperature"}}, "bad_request"),
    "a server": (500, b"", "upstream_down"),
    "no status of HTTP's": (799, b"", "upstream_down"),
    "a redirect": (302, b"", "not_a_stream"),
}


@pytest.mark.parametrize(("status", "body", "code"), CODES.values(), ids=CODES.keys())
def test_the_code_of_an_error_answer(status: int, body: Any, code: str) -> None:
    failure = from_answer(answer(status, body))
    assert failure.code == code
    assert str(status) in failure.message
    assert failure.status == (status if 400 <= status < 600 else 502)
    assert (failure.said is None) == (not 400 <= status < 600)


def test_an_answer_that_was_cut_off_is_not_passed_on_but_its_status_is() -> None:
    failure = from_answer(answer(429, b"Slow down. " + b"x" * MAX_SAID))
    assert (failure.said, failure.status) == (None, 429)
    assert "Slow down." in failure.message
