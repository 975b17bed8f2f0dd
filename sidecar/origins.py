"""Hosts and origins in the form in which they compare (RFC 9110, 4.2.3 and 7.2; RFC 6454, 4; HTML, "origin").

In:  texts from a setting or a request. Out: the same in lower case, with addresses in their shortest form and without the
scheme's default port; or ValueError for a text that no browser sends.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

DEFAULT_PORTS = {"http": "80", "https": "443"}

_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\\\s]*)")


@lru_cache(maxsize=16)  # of a request's host, twice
def split(authority: str) -> tuple[str, str]:
    """Host and port of `app.example:8090` or `[::1]`; an empty port counts as none. Another text is all host."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return (match[1], match[2] or "") if match is not None else (authority, "")


def normal_host(authority: str) -> str:
    """A host, with a port or without. Raises ValueError."""
    host, port = split(authority)
    if host.startswith("[") and host.endswith("]"):
        host = f"[{IPv6Address(host[1:-1])}]"
    elif _NAME.fullmatch(host) is None:
        raise ValueError(authority)
    elif host.rstrip(".").rpartition(".")[2].isdigit():  # a browser takes such a name for an address (URL standard, 3.5)
        host = str(IPv4Address(host))
    if not port:
        return host
    if int(port) > 65535:
        raise ValueError(authority)
    return f"{host}:{int(port)}"


def normal_origin(origin: str) -> str:
    """An origin as a browser sends it. An app's origin has a scheme of its own, and perhaps no host: `app://`.

    Raises ValueError, also for `null`: pages of any sandbox and of any file send that.
    """
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None or match[1] == "file":
        raise ValueError(origin)
    scheme, authority = match[1], match[2]
    if scheme in DEFAULT_PORTS:
        authority = normal_host(authority).removesuffix(":" + DEFAULT_PORTS[scheme])
    return f"{scheme}://{authority}"


def known(origin: str) -> str:
    """The origin that a request names, in normal form; empty if the text is no origin that a setting could name."""
    try:
        return normal_origin(origin)
    except ValueError:
        return ""


def same_host(origin: str, authority: str) -> bool:
    """Whether an origin in normal form has the host and port of a request's Host header."""
    scheme, _, own = origin.partition("://")
    if scheme not in DEFAULT_PORTS:
        return False
    (host, port), (named, named_port) = split(own), split(authority)
    return host == named and (port or DEFAULT_PORTS[scheme]) == (named_port or DEFAULT_PORTS[scheme])


@lru_cache(maxsize=16)  # a request asks three times, always for the same few hosts: 0.1 µs instead of 4
def is_loopback(host: str) -> bool:
    """Whether a host name or address, without its port, is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
