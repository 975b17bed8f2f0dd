"""What the environment says of the upstream (OPENAI_API_KEY, OPENAI_BASE_URL), and faults of its proxies and certificates.

No secret is shown: the key, and passwords in URLs, are removed from every message.
"""

import os
import re
from typing import Final
from urllib.parse import urlsplit

from sse.errors import describe

OPENAI: Final = "https://api.openai.com/v1"

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_SHOWN: Final = 8
"""Upstreams quote so many characters from either end of a wrong key. Fewer characters reveal nothing."""


def server() -> tuple[str, str] | None:
    """The base URL and the key, None if neither is set. Raises ValueError for what can't be sent."""
    key, base_url = (os.environ.get(name, "").strip() for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"))
    if not re.fullmatch(r"[\x20-\x7e]*", key):
        raise ValueError("OPENAI_API_KEY=(not shown): expected characters of ASCII alone")
    if base_url and not _is_url(base_url):
        raise ValueError(f"OPENAI_BASE_URL={_without_passwords(base_url)!r}: expected a URL such as https://host/v1")
    return (base_url or OPENAI, key) if key or base_url else None


def explained(error: BaseException) -> str:
    """An error, and the variables of the environment that may be its cause."""
    text = _without_passwords(describe(error))
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (path := os.environ.get(name)) and not os.path.exists(path):
            return f"{name}={path}: there is no such file ({text})"
    proxies = ", ".join(name for name in _PROXIES if os.environ.get(name))
    return f"{text} (with {proxies} set)" if proxies else text


def redacted(text: str, key: str) -> str:
    """The text without the key, and without the key's beginning and end."""
    for shown in {key, key.replace("/", "\\/")} if len(key) > 3 else ():
        if shown[:_SHOWN] in text or shown[-_SHOWN:] in text:
            for length in range(len(shown), min(len(shown), _SHOWN) - 1, -1):
                text = text.replace(shown[:length], "***").replace(shown[-length:], "***")
    return text


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and re.search(r"\s", text) is None
    except ValueError:
        return False


def _without_passwords(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)
