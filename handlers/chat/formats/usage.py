"""An upstream's token counts, by the names that the AI SDK and AG-UI have for them."""

from typing import Any, Final

_NAMES: Final = {
    "inputTokens": ("prompt_tokens",),
    "outputTokens": ("completion_tokens",),
    "totalTokens": ("total_tokens",),
    "reasoningTokens": ("completion_tokens_details", "reasoning_tokens"),
    "cachedInputTokens": ("prompt_tokens_details", "cached_tokens"),
}


def counted(usage: Any) -> dict[str, int]:
    """usage: in OpenAI's shape, or whatever an upstream sent in its place. Only what is a count."""
    counts = {}
    for name, path in _NAMES.items():
        value = usage
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if type(value) is int and value >= 0:
            counts[name] = value
    return counts
