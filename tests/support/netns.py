"""A network of two: this machine, and a namespace beside it whose packets can be swallowed.

with network() as net:                     # Linux, as root
    sock = net.connect(port)               # a blocking socket in there, connected to net.address out here
    net.swallow()                          # from now on nothing that is sent in there arrives
"""

import ctypes
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.require import missing, require

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Network:
    """name: of the namespace. address: of this machine, as it is seen from there."""

    name: str
    address: str

    def connect(self, port: int, *, receive_buffer: int | None = None) -> socket.socket:
        """A socket is of the namespace that its thread is in when it is made."""
        made: list[socket.socket] = []

        def make() -> None:
            with open(f"/run/netns/{self.name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, "the namespace can't be entered"
        if receive_buffer is not None:
            made[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made[0].settimeout(10)
        made[0].connect((self.address, port))
        return made[0]

    def swallow(self) -> None:
        inside = ["ip", "netns", "exec", self.name, "nft"]
        run(*inside, "add", "table", "inet", "swallow")
        run(*inside, "add", "chain", "inet", "swallow", "in", "{ type filter hook input priority 0; policy drop; }")
        run(*inside, "add", "chain", "inet", "swallow", "out", "{ type filter hook output priority 0; policy drop; }")


@contextmanager
def network() -> Iterator[Network]:
    if sys.platform != "linux" or os.geteuid() != 0:
        missing_root()
    for program in ("ip", "nft"):
        require(program)
    tag = secrets.token_hex(3)
    name, outside, inside = f"ss{tag}", f"sso{tag}", f"ssi{tag}"
    subnet = f"10.213.{secrets.randbelow(256)}"
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        missing(f"no network namespaces here: {error.stderr.strip()}")
    try:
        run("ip", "addr", "add", f"{subnet}.1/30", "dev", outside)
        run("ip", "link", "set", outside, "up")
        run("ip", "netns", "exec", name, "ip", "addr", "add", f"{subnet}.2/30", "dev", inside)
        run("ip", "netns", "exec", name, "ip", "link", "set", inside, "up")
        yield Network(name, f"{subnet}.1")
    finally:
        run("ip", "link", "del", outside)
        run("ip", "netns", "del", name)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def missing_root() -> None:
    """Not even SIDESTREAM_REQUIRE=all makes somebody root."""
    import pytest

    pytest.skip("network namespaces need Linux and root")
