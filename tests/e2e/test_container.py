"""The image: built, started and stopped by deploy/build where podman runs, on a base of Debian's packages; and process 1.

Skipped where this machine can't run containers, which deploy/build finds out (status 77). What can't be tried here is the base
that the Containerfile names: only its name and what it is made of (Debian, Python 3.13) are the same.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.nginx import free_ports
from tests.support.redis import redis_server
from tests.support.require import missing, require
from tests.support.servers import sidecar
from tests.support.sockets import Client, Cut, fetch

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
IMAGE = "localhost/sidestream-test"
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--health-interval", "disable")
CONFINED = ("--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", *LIMITS)


@pytest.fixture(scope="module")
def figures() -> dict[str, str]:
    """What deploy/build measured of the image that it has built."""
    require("podman")
    require("mmdebstrap")
    environ = os.environ | {"IMAGE": IMAGE, "PORT": str(free_ports(1)[0])}
    command = [str(ROOT / "deploy/build"), "debian"]
    build = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)
    if build.returncode == 77:
        pytest.skip(build.stderr)
    assert build.returncode == 0, build.stdout + build.stderr
    return dict(line.split(" ") for line in build.stdout.splitlines())


def podman(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def container(figures: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Makes containers of the image, and removes them at the end."""
    made: list[str] = []

    def create(*options: str) -> str:
        result = podman("create", *CONFINED, *options, IMAGE)
        assert result.returncode == 0, result.stderr
        made.append(result.stdout.strip())
        return made[-1]

    yield create
    for name in made:
        podman("rm", "--force", "--time", "0", name)


def test_it_serves_without_anything_writable_and_ends_with_0(figures: dict[str, str]) -> None:
    assert figures["health_check"] == "ok"
    assert figures["exit_status"] == "0"
    assert set(figures) == {
        "image_mb", "added_to_base_mb", "start_to_first_event_ms", "idle_memory_mib", "health_check", "stop_ms", "exit_status"
    }  # fmt: skip


def test_it_starts_nowhere_else_than_on_loopback_without_a_token(container: Callable[..., str]) -> None:
    result = podman("start", "--attach", container())
    assert result.returncode == 2
    assert "SIDESTREAM_TOKEN" in result.stderr


def test_the_result_has_no_compiler_no_cache_and_no_root(figures: dict[str, str]) -> None:
    look = (
        "id -u; for program in cc gcc c++ make; do command -v $program; done; find / -xdev -path '*/.cache/pip*'; "
        "find /app /venv -xdev ! -user root; find /app -name '*.py' | wc -l; find /app -name '*.pyc' | wc -l; ls /app"
    )
    result = podman("run", "--rm", *CONFINED, "--entrypoint", "sh", IMAGE, "-c", look)
    user, sources, compiled, *contents = result.stdout.split()
    assert user == "10001"
    assert sources == compiled, "some module is compiled at each start"
    assert [name for name in contents if name != "__pycache__"] == ["app.py", "handlers", "sidecar", "sse"]


async def test_it_has_what_a_store_needs(container: Callable[..., str], tmp_path: Path) -> None:
    """The extra `redis`: what a container runs is watched at a process beside it."""
    [port] = free_ports(1)
    async with redis_server(tmp_path) as redis, sidecar(SIDESTREAM_STORE=redis.url) as beside:
        settings = {"HOST": "127.0.0.1", "PORT": port, "TOKEN": "off", "STORE": redis.url}
        name = container(*[word for key, value in settings.items() for word in ("--env", f"SIDESTREAM_{key}={value}")])
        assert podman("start", name).returncode == 0
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError, Cut):
                    status, answer = await fetch(port, "/jobs", method="POST")
                    break
                await asyncio.sleep(0.05)
        assert status == 202, answer
        async with Client(beside.port) as client:
            events = await (await client.get(f"/streams/{json.loads(answer)['job_id']}")).events()
        assert events[-1].data == "[DONE]"


def test_a_sigterm_right_after_the_start_ends_it(container: Callable[..., str]) -> None:
    name = container("--env", "SIDESTREAM_TOKEN=secret", "--env", "SIDESTREAM_PORT=0")
    for _ in range(3):
        assert podman("start", name).returncode == 0
        assert podman("kill", "--signal", "TERM", name).returncode == 0
        assert podman("wait", name, timeout=15).stdout.strip() == "0"


# -- process 1, without a container: a process namespace of its own is enough


def entrypoint() -> list[str]:
    """The image's, with this Python."""
    match = re.search(r"^ENTRYPOINT (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    assert match is not None
    command = json.loads(match[1])
    assert command[-2:] == ["/venv/bin/python3", "app.py"]
    return [*command[:-2], sys.executable, "app.py"]


@pytest.mark.parametrize("delay", [0, 0.005, 0.02, 0.05, 0.1, 0.2], ids=lambda delay: f"{delay * 1000:g} ms")
def test_process_1_obeys_a_sigterm_however_early(delay: float) -> None:
    namespace = [require("unshare"), "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        missing("process namespaces can't be made here")
    environ = os.environ | {"SIDESTREAM_PORT": "0"}
    with subprocess.Popen([*namespace, *entrypoint()], cwd=ROOT, env=environ, stderr=subprocess.PIPE) as process:
        try:
            first = _process_1_that_blocks(process.pid)
            time.sleep(delay)
            os.kill(first, signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def _process_1_that_blocks(unshare: int) -> int:
    """The process id, seen from here, of unshare's child, once `env` has blocked SIGTERM in it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            blocked = re.search(r"^SigBlk:\s+([0-9a-f]+)$", status, re.MULTILINE)
            if status.startswith("Name:\tunshare\n"):
                continue  # it blocks SIGTERM itself, for as long as it forks
            if blocked is not None and int(blocked[1], 16) & 1 << signal.SIGTERM - 1:
                return int(child)
    pytest.fail("SIGTERM is never blocked")
