"""Hosts and origins in the form in which they compare (RFC 9110, 4.2.3 and 7.2; RFC 6454, 4; HTML, "origin").

In:  texts, from a setting or from a request. Out: lower case, addresses in their shortest form, and no port where it is the
scheme's own; or ValueError for what no browser would send.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

DEFAULT_PORTS = {"http": "80", "https": "443"}

_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\\\s]*)")


def split(authority: str) -> tuple[str, str]:
    """Host and port of `app.example:8090` or `[::1]`; an empty port counts as none. What is neither is all host."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return (match[1], match[2] or "") if match is not None else (authority, "")


def normal_host(authority: str) -> str:
    """A host, with a port or without. Raises ValueError."""
    host, port = split(authority)
    if host.startswith("[") and host.endswith("]"):
        host = f"[{IPv6Address(host[1:-1])}]"
    elif _NAME.fullmatch(host) is None:
        raise ValueError(authority)
    elif host.rstrip(".").rpartition(".")[2].isdigit():  # then a browser takes it for an address (URL standard, 3.5)
        host = str(IPv4Address(host))
    if not port:
        return host
    if int(port) > 65535:
        raise ValueError(authority)
    return f"{host}:{int(port)}"


def normal_origin(origin: str) -> str:
    """An origin as a browser says it. That of an app has a scheme of its own, and perhaps no host: `app://`.

    Raises ValueError, for `null` as well: that is said by the pages of every sandbox and of every file.
    """
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None or match[1] == "file":
        raise ValueError(origin)
    scheme, authority = match[1], match[2]
    if scheme in DEFAULT_PORTS:
        authority = normal_host(authority).removesuffix(":" + DEFAULT_PORTS[scheme])
    return f"{scheme}://{authority}"


def known(origin: str) -> str:
    """An origin that a request names, in normal form; empty if it is none that could be allowed."""
    try:
        return normal_origin(origin)
    except ValueError:
        return ""


def same_host(origin: str, authority: str) -> bool:
    """Whether an origin in normal form is of the host that a request names in Host."""
    scheme, _, own = origin.partition("://")
    if scheme not in DEFAULT_PORTS:
        return False
    (host, port), (named, named_port) = split(own), split(authority)
    return host == named and (port or DEFAULT_PORTS[scheme]) == (named_port or DEFAULT_PORTS[scheme])


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without its port, is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
