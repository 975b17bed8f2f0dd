"""An upstream's list of models, in one of the shapes in which servers list them -> a model."""

import re
from collections.abc import Mapping
from typing import Any, Final

from handlers.chat.items import UpstreamFailed
from handlers.chat.upstream.failures import read

_NO_CHAT: Final = re.compile(
    r"embed|rerank|whisper|transcri|moderation|dall-e|stable-diffusion|davinci|babbage"
    r"|(^|[^a-z])(tts|stt|asr|bge|gte|e5|clip|sora|flux|image|speech|minilm)([^a-z]|$)",
    re.IGNORECASE,
)
"""Ids of models that can't chat."""


def listed(body: bytes) -> dict[str, Mapping[str, Any]]:
    """The models, by their ids."""
    value = read(body)
    models = (value.get("data") or value.get("models")) if isinstance(value, dict) else value
    found: dict[str, Mapping[str, Any]] = {}
    for model in models if isinstance(models, list) else ():
        if isinstance(model, dict) and isinstance(id := model.get("id") or model.get("name"), str) and id:
            found.setdefault(id, model)
    return found


def first(body: bytes) -> str:
    """The first one that can chat; where none looks like that, the first. Raises UpstreamFailed if there is none."""
    ids = list(listed(body))
    if not ids:
        raise UpstreamFailed("the upstream lists no model: the request has to name one", "model_not_found")
    return next((id for id in ids if not _NO_CHAT.search(id)), ids[0])
