"""The settings, read from the environment and checked once, at the start.

In:  variables named `SIDESTREAM_…`; one that is empty counts as not set. Out: `Settings`, or a ValueError whose one line
names the variable, its value, and what is expected.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from typing import Any

from sidecar.origins import normal_host, normal_origin

logger = logging.getLogger("sidestream")

PREFIX = "SIDESTREAM_"

Reader = tuple[Callable[[str], Any], str]
"""A function from a variable's text to its value, which raises ValueError or KeyError; and what it expects, in words."""


def _bounded(convert: Callable[[str], Any], minimum: float, maximum: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = convert(text)
        if not minimum <= value <= maximum:  # true for NaN too
            raise ValueError(text)
        return value

    return read


def integer(minimum: int, maximum: int) -> Reader:
    return _bounded(int, minimum, maximum), f"an integer from {minimum} to {maximum}"


def seconds(minimum: float, maximum: float = 86400) -> Reader:
    return _bounded(float, minimum, maximum), f"seconds, from {minimum:g} to {maximum:g}"


def seconds_or_none(minimum: float) -> Reader:
    read, expected = seconds(minimum)
    return (lambda text: None if text == "none" else read(text)), f"{expected}, or none"


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+) ?(|KiB|MiB|GiB)", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) << {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]]


def size(minimum: int) -> Reader:
    return _bounded(_size, minimum, 1 << 40), f"bytes (as 65536, 64KiB or 4MiB), at least {minimum}"


def choice(values: Mapping[str, Any], expected: str) -> Reader:
    """One of several words, in any case."""
    return (lambda text: values[text.lower()]), expected


def matching(regex: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if re.fullmatch(regex, text) is None:
            raise ValueError(text)
        return text

    return read


def several(read: Callable[[str], str], expected: str) -> Reader:
    """A list, separated by commas or blanks, with at least one entry."""

    def read_all(text: str) -> tuple[str, ...]:
        parts = [part for part in re.split(r"[,\s]+", text) if part]
        if not parts:
            raise ValueError(text)
        return tuple(map(read, parts))

    return read_all, f"{expected}, separated by commas"


def network(text: str) -> str:
    """An address or a network, as uvicorn reads it. Raises ValueError, also for IPv4 written as IPv6.

    Clients never have such an address here (`connection` writes it as IPv4).
    """
    if getattr(ip_network(text).network_address, "ipv4_mapped", None) is not None:
        raise ValueError(text)
    return text


_FLAGS = {"on": True, "1": True, "true": True, "yes": True, "off": False, "0": False, "false": False, "no": False}

text: Reader = (str, "a text")
flag: Reader = choice(_FLAGS, "on or off")
modules: Reader = several(matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"), "Python modules")
level: Reader = choice({name: name for name in ("debug", "info", "warning", "error")}, "debug, info, warning or error")


def _tokens(value: str) -> tuple[str, ...]:
    tokens: tuple[str, ...] = several(matching(r"[\x21-\x2b\x2d-\x7e]+"), "tokens")[0](value)
    if "off" not in map(str.lower, tokens):
        return tokens
    if len(tokens) > 1:
        raise ValueError(value)
    return ("off",)


def knob(default: Any, reader: Reader, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"reader": reader})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings. Durations are in seconds, `retry` is in milliseconds, sizes are in bytes."""

    host: str = knob("127.0.0.1", text)
    port: int = knob(8090, integer(0, 65535))
    root_path: str = knob("", (matching(r"(/[A-Za-z0-9._~-]+)*"), "a path such as /sidestream, without a slash at its end"))

    token: tuple[str, ...] = knob((), (_tokens, "one or more tokens, or off alone"), secret=True)
    origins: tuple[str, ...] = knob((), several(normal_origin, "origins such as https://app.example or app://name"))
    hosts: tuple[str, ...] = knob((), several(normal_host, "host names, each with a port or without"))
    trusted_proxies: tuple[str, ...] = knob((), several(network, "addresses or networks such as 10.0.0.0/8"))

    heartbeat: float = knob(15.0, seconds(0.05))
    retry: int = knob(2000, integer(0, 3_600_000))
    send_timeout: float = knob(30.0, seconds(0.1))
    linger: float | None = knob(30.0, seconds_or_none(0))
    keep: float = knob(300.0, seconds(0))
    drain: float = knob(20.0, seconds(0, 3600))

    max_body: int = knob(16 << 20, size(1024))
    max_streams: int = knob(1000, integer(1, 1_000_000))
    max_watchers: int = knob(10000, integer(1, 1_000_000))
    replay_events: int = knob(1 << 18, integer(16, 10_000_000))
    replay_bytes: int = knob(64 << 20, size(65536))
    memory: int = knob(256 << 20, size(1 << 20))
    store: str = knob("", (matching(r"(rediss?|unix)://\S+"), "redis://…, rediss://… or unix://…"), secret=True)
    store_required: bool = knob(True, flag)

    job_threads: int = knob(4, integer(1, 256))
    job_queue: int = knob(64, integer(0, 100_000))
    jobs: tuple[str, ...] = knob((), modules)

    model: str = knob("", text)
    system: str = knob("You are a helpful assistant.", text)
    max_stages: int = knob(32, integer(1, 100))
    first_token_timeout: float = knob(900.0, seconds(0.1))
    upstream_timeout: float = knob(900.0, seconds(0.1))
    tools: tuple[str, ...] = knob((), modules)
    demo_interval: float = knob(0.1, seconds(0, 60))

    ascii: bool = knob(False, flag)
    log_level: str = knob("info", level)


def warn_of_unknown(environ: Mapping[str, str] = os.environ) -> None:
    """Log the variables that are named like a setting and are none: a name that is misspelt would have no effect in silence."""
    known = {PREFIX + knob_.name.upper() for knob_ in fields(Settings)}
    for name in sorted(environ.keys() - known):
        if name.startswith(PREFIX):
            logger.warning("%s is not a setting, and has no effect", name)


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings. Raises ValueError for the first one that is wrong."""
    values: dict[str, Any] = {}
    for knob_ in fields(Settings):
        variable = PREFIX + knob_.name.upper()
        value = environ.get(variable, "").strip()
        if not value:
            continue
        read, expected = knob_.metadata["reader"]
        try:
            values[knob_.name] = read(value)
        except (ValueError, KeyError):
            shown = repr(value) if knob_.repr else "(not shown)"
            raise ValueError(f"{variable}={shown}: expected {expected}") from None
    return Settings(**values)
