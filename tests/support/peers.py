"""Servers of bytes for the tests of HTTP clients: real sockets, and answers that no HTTP server would give.

    async with peer(says(b"HTTP/1.1 200 OK\\r\\n…")) as server:
        ...                                 # server.url, .requests, .connections; await server.ended(2)

An answer is a coroutine that writes to the connection what it wants. When it returns, the connection waits for the next
request. It is cancelled when the client goes. `certificate` makes one that is its own authority.
"""

import asyncio
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from tests.support.require import require

Answer = Callable[["Serving"], Coroutine[Any, Any, None]]


class Peer:
    """requests: as they came, head and body. connections: how many have come. names: what TLS clients asked for (SNI)."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections: list[Serving] = []
        self.names: list[str | None] = []
        self.gone = 0
        self._changed = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()

    async def came(self, requests: int) -> None:
        await self._until(lambda: len(self.requests) == requests)

    async def ended(self, connections: int) -> None:
        """Wait until as many connections have ended, from either side."""
        await self._until(lambda: self.gone == connections)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(condition)

    def tell(self) -> None:
        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


class Serving(asyncio.Protocol):
    """One connection. writable: set while the kernel takes what is written."""

    def __init__(self, peer: Peer) -> None:
        self.transport: asyncio.Transport
        self.writable = asyncio.Event()
        self.writable.set()
        self._peer = peer
        self._buffer = bytearray()
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._peer.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n") + 4
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._buffer[:head])
        end = head + (int(length[1]) if length else 0)
        if head >= 4 and len(self._buffer) >= end:
            self._peer.requests.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
            assert not self._buffer, "a request before the last one was answered"
            self._peer.tell()
            self._answering = asyncio.get_running_loop().create_task(self._peer.answer(self))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()
        self._peer.gone += 1
        self._peer.tell()

    async def write(self, data: bytes) -> None:
        """Write, and give the client a turn of the loop to read it."""
        self.transport.write(data)
        await self.writable.wait()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """End it with RST in the place of FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def cut(self) -> None:
        """End it with FIN, without what TLS says before."""
        self.transport.abort()


@asynccontextmanager
async def peer(answer: Answer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    serving = Peer(answer)
    if tls is not None:
        tls.sni_callback = lambda _, name, __: serving.names.append(name)
    server = await asyncio.get_running_loop().create_server(lambda: Serving(serving), host, 0, ssl=tls, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    serving.url = f"{'https' if tls else 'http'}://{shown}:{port}"
    try:
        yield serving
    finally:
        server.close()
        for connection in serving.connections:
            connection.transport.abort()
        await serving.ended(len(serving.connections))


def says(*parts: bytes, then: Callable[[Serving], Any] = lambda _: None) -> Answer:
    """These parts, each in a write of its own; and what becomes of the connection then."""

    async def answer(connection: Serving) -> None:
        for part in parts:
            await connection.write(part)
        then(connection)

    return answer


async def hang(_: Serving) -> None:
    """No answer: the client has to go."""
    await asyncio.get_running_loop().create_future()


def one_after_the_other(*answers: Answer) -> Answer:
    """Each request gets the next answer, whatever connection it comes by."""
    left = list(answers)

    async def answer(connection: Serving) -> None:
        await left.pop(0)(connection)

    return answer


def certificate(folder: Path, name: str) -> Path:
    """A certificate for the name ("DNS:…" or "IP:…"). Its folder can be SSL_CERT_DIR.

    It is its own authority: whoever trusts it trusts the server.
    """
    trusted = folder / "trusted" / "certificate.pem"
    trusted.parent.mkdir()
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=test"]
    files = ["-keyout", str(_key(trusted)), "-out", str(trusted)]
    _openssl("req", "-x509", *options, "-addext", f"subjectAltName={name}", *files)
    _openssl("rehash", str(trusted.parent))
    return trusted


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, _key(certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _key(certificate: Path) -> Path:
    return certificate.parents[1] / "key.pem"


def _openssl(*arguments: str) -> None:
    subprocess.run([require("openssl"), *arguments], stderr=subprocess.DEVNULL, check=True)
