"""A real nginx with the configuration that is shipped: only its ports and paths are others.

async with nginx(tmp_path, sidecar=8090) as proxy: ...
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.require import require

CONFIGURATION = Path(__file__).parents[2] / "nginx.conf"
EPHEMERAL = 32_768
"""The first port that Linux gives to outgoing connections, and to whoever asks for any (ip_local_port_range's default)."""


@dataclass(frozen=True, slots=True)
class Nginx:
    """http, https: its public ports. private: the one for the application."""

    directory: Path
    http: int
    https: int
    private: int

    def log(self) -> list[dict[str, Any]]:
        """The requests that have ended, in no certain order. To be read when nginx has stopped: it logs last of all."""
        return [json.loads(line) for line in (self.directory / "access.log").read_text().splitlines()]


def switched_on(configuration: str) -> str:
    """With every directive that is a comment ("#" and no blank after it)."""
    return re.sub(r"^( *)#(?=[^ \n])", r"\1", configuration, flags=re.MULTILINE)


def work_switched_on(configuration: str) -> str:
    """With the location for what starts work, and the check of the application's that guards it."""
    begin, end = configuration.index("        #location ~ "), configuration.index("        # Nothing else is public")
    return configuration[:begin] + switched_on(configuration[begin:end]) + configuration[end:]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free. They lie below those that the kernel gives out, so that no connection takes one."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, EPHEMERAL)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


async def certificate(directory: Path) -> None:
    """The certificate and key that the configuration names, self-signed."""
    out = ["-keyout", str(directory / "sidestream.key"), "-out", str(directory / "sidestream.crt")]
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    await _run(require("openssl"), "req", "-x509", *options, *out)


async def written(
    directory: Path, configuration: str, *, sidecar: int = 1, application: int = 1, ports: tuple[int, int, int] = (1, 2, 3)
) -> Path:
    """The configuration as a file that an nginx of ours can use. ports: http, https, private."""
    await certificate(directory)
    http, https, private = ports
    for what, instead in {
        "/etc/nginx/": f"{directory}/",
        "/var/log/nginx/": f"{directory}/",
        "listen 80 ": f"listen 127.0.0.1:{http} ",
        "listen 443 ": f"listen 127.0.0.1:{https} ",
        "listen [::]:80 ": f"listen [::1]:{http} ",
        "listen [::]:443 ": f"listen [::1]:{https} ",
        "127.0.0.1:8091": f"127.0.0.1:{private}",
        "127.0.0.1:8090": f"127.0.0.1:{sidecar}",
        "127.0.0.1:3000": f"127.0.0.1:{application}",
        "worker_rlimit_nofile 65536": "worker_rlimit_nofile 1024",  # a container may not be allowed more
    }.items():
        configuration = configuration.replace(what, instead)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {directory}/temp;\n" for kind in kinds)
    path = directory / "nginx.conf"
    path.write_text(configuration.replace("http {\n", "http {\n" + temporary, 1))
    return path


async def check(directory: Path, configuration: str) -> str:
    """What `nginx -t` says of the configuration."""
    path = await written(directory, configuration)
    return await _run(require("nginx"), *_options(path), "-t")


@asynccontextmanager
async def nginx(
    directory: Path, *, sidecar: int, application: int = 1, configuration: str | None = None
) -> AsyncIterator[Nginx]:
    """Start it, and stop it at the end. sidecar, application: the ports of 127.0.0.1 behind it."""
    program = require("nginx")
    ports = free_ports(3)
    text = CONFIGURATION.read_text() if configuration is None else configuration
    path = await written(directory, text, sidecar=sidecar, application=application, ports=(ports[0], ports[1], ports[2]))
    await _run(program, *_options(path))  # it returns when the listening sockets are there, and goes on as a daemon
    pid = os.pidfd_open(int((directory / "nginx.pid").read_text()))
    try:
        yield Nginx(directory, *ports)
    finally:
        signal.pidfd_send_signal(pid, signal.SIGTERM)
        await _ended(pid)
        os.close(pid)


def _options(path: Path) -> list[str]:
    directory = path.parent
    return ["-p", str(directory), "-c", str(path), "-e", str(directory / "error.log"), "-g", f"pid {directory}/nginx.pid;"]


async def _run(*command: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def _ended(pid: int) -> None:
    """Wait for a process that is not our child (pidfd_open(2): readable when it has ended)."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pid, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pid)
