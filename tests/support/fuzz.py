"""Requests that nobody should send, made from a seed; and whether what came back is HTTP."""

import random
import re
from typing import Final

PATHS: Final = (
    "/",
    "/stream",
    "/chat",
    "/v1/chat/completions",
    "/v1/models",
    "/streams",
    "/streams/x",
    "/streams/x/events",
    "/streams/x/close",
    "/jobs/x",
    "/jobs/x/progress",
    "/merge",
    "/bench",
    "/healthz",
    "/readyz",
    "/metrics",
    "/nothing",
    "*",
    "",
    "http://elsewhere/",
    "//",
    "/%2e%2e/%00",
    "/streams/%ff",
    "/стрим",
)
QUERIES: Final = (
    "",
    "?count=2&interval=0",
    "?count=-1",
    "?count=99999999999999999999",
    "?prompt=hi",
    "?streams=a,b",
    "?streams=,",
    "?" + "&".join(["a=b"] * 300),
    "?last_event_id=x.1",
    "?%zz=%zz",
    "?limit=0",
    "?events=3&size=10",
)
METHODS: Final = (
    *("GET",) * 10,
    *("POST",) * 4,
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "get",
    "PRI",
    "",
)
VERSIONS: Final = (*("HTTP/1.1",) * 12, "HTTP/1.0", "HTTP/9", "")
FIELDS: Final = (
    b"Host: 127.0.0.1",
    b"Host: elsewhere.example",
    b"Accept: text/event-stream",
    b"Accept: application/json",
    b"Accept: " + b"a/b," * 500,
    b"Last-Event-ID: x.1",
    b"Last-Event-ID: \xff\xfe",
    b"Last-Event-ID: " + b"9" * 5000,
    b"Last-Event-ID: end",
    b"Idempotency-Key: k",
    b"Idempotency-Key: " + b"k" * 300,
    b"Origin: null",
    b"Origin: https://elsewhere.example",
    b"Authorization: Bearer",
    b"Stream-Key: \x80",
    b"Content-Type: application/json",
    b"Content-Type: text/event-stream",
    b"Content-Type: application/jsonl",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 5, 6",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b": nameless",
    b"no colon",
    b" folded",
    b"X-\x00: y",
    b"X: \x00",
    b"X: \r y",
    b"X" * 9000 + b": y",
    b"X: " + b"y" * 40_000,
    b"X-Request-ID: \x1b[31m",
)
BODIES: Final = (
    b"",
    b"hello",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b'{"prompt": "hi"}',
    b'{"prompt": 5}',
    b'{"messages": [{}]}',
    b"[" * 5000,
    b'{"a":' * 5000,
    b"1e999999",
    b'"\\ud800"',
    b"\xff" * 100,
    b'{"data": 1}',
    b'{"event": "a\\nb", "data": 1}',
    b"data: x\n\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"-5\r\nhello",
    b"5;ext=" + b"e" * 2000 + b"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    b"0\r\nAuthorization: Bearer t\r\nHost: elsewhere.example\r\n\r\n",
    b"0\r\nX: " + b"y" * 40_000,
    b"0" * 40_000,
    b"zz\r\n",
    b"\x00" * 2000,
)


def request(rng: random.Random) -> bytes:
    """One request, or something like it."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(1, 3000))
    line = f"{rng.choice(METHODS)} {rng.choice(PATHS)}{rng.choice(QUERIES)} {rng.choice(VERSIONS)}"
    body = rng.choice(BODIES)
    fields = [b"Host: 127.0.0.1", *rng.choices(FIELDS, k=rng.choice((0, 0, 0, 1, 1, 2, 4)))]
    if rng.random() < 0.6:
        fields.append(b"Content-Length: %d" % len(body))
    if rng.random() < 0.02:
        fields += [b"X-%d: y" % number for number in range(5000)]
    whole = b"\r\n".join([line.encode(), *fields, b"", body])
    return mutated(rng, whole) if kind < 0.25 else whole


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(changed))
        match rng.randrange(3):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                del changed[place : place + rng.randrange(1, 20)]
            case _:
                changed[place:place] = rng.randbytes(rng.randrange(1, 20))
        if not changed:
            break
    return bytes(changed)


_HEAD = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*\r\n((?:[!-9;-~]+:[ \t]*[ -~\x80-\xff]*\r\n)*)\r\n")


def fault(data: bytes) -> str | None:
    """What is wrong with these bytes as one answer after the other, the last one perhaps not complete; None if nothing is.

    Limit: which answer is one to HEAD isn't known; such a one may lack its body.
    """
    while data:
        head = _HEAD.match(data)
        if head is None:
            return (
                None if b"\r\n\r\n" not in data and data.startswith(b"HTTP/1.1 "[: len(data)]) else f"no head: {data[:200]!r}"
            )
        status, data = int(head[1]), data[head.end() :]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head[2].splitlines())}
        if status in (100, 204, 304):
            continue
        if fields.get(b"transfer-encoding") == b"chunked":
            while data:
                size, found, rest = data.partition(b"\r\n")
                if not found:
                    return None
                if re.fullmatch(rb"[0-9a-f]{1,8}", size) is None:
                    return f"no chunk: {data[:200]!r}"
                length = int(size, 16)
                if len(rest) >= length + 2 and rest[length : length + 2] != b"\r\n":
                    return f"no end of a chunk: {rest[length:][:200]!r}"
                data = rest[length + 2 :]
                if length == 0:
                    break
        elif (length_field := fields.get(b"content-length", b"")).isdigit():
            data = b"" if data.startswith(b"HTTP/1.1 ") else data[int(length_field) :]
        elif fields.get(b"connection") == b"close":  # to HTTP/1.0: until the connection ends (RFC 9112, 6.3)
            return None
        elif data and not data.startswith(b"HTTP/1.1 "):  # HEAD has none
            return f"no length: {head[0]!r}"
    return None
