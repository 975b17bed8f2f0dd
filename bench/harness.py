"""How things are measured: a server as a process of its own on one core, its clients on the other.

A figure is only worth something beside another one of the same run: machines are noisy, ratios hold. CPU is that of the
server's process and of all processes below it.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
FOREIGN = ("SIDESTREAM_", "OPENAI_", "LITELLM_", "PYTHONDONTWRITEBYTECODE")
"""How the variables begin that servers don't inherit: production compiles a module once."""

LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs. out: what it prints, if that is read."""

    port: int
    pid: int
    out: IO[bytes] | None = None

    def lines(self, enough: int, seconds: float) -> list[str]:
        """What it has printed: so many lines, or as many as there are after these seconds."""
        assert self.out is not None
        printed, end = b"", time.monotonic() + seconds
        while printed.count(b"\n") < enough and select.select([self.out], [], [], max(0, end - time.monotonic()))[0]:
            if not (data := os.read(self.out.fileno(), 65536)):
                break
            printed += data
        return printed.decode().splitlines()

    def rss(self) -> int:
        """Bytes of memory that the processes have resident; what they share counts for each."""
        return sum(_resident(pid) for pid in tree(self.pid))

    def cpu(self) -> float:
        """Seconds of processor time that the processes have used."""
        return sum(_processor_time(pid) for pid in tree(self.pid))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _processor_time(pid: int) -> float:
    """Of all threads, user and system; in ns, where /proc counts in hundredths of a second (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def running(command: Callable[[int], list[str]], directory: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Start a server on its core, wait until it takes connections, and end it. command: of the port."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command(port),
            cwd=directory,
            env={**clean, **env},
            preexec_fn=pinned(SERVER_CORE),
            stdout=said,
            stderr=said,
        )
        try:
            wait_for(port, process)
            yield Running(port, process.pid)
        except SystemExit as error:
            said.seek(0)
            raise SystemExit(f"{error}; it said: …{said.read().decode(errors='replace').strip()[-300:]}") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its workers; nothing is measured of an orderly end
            process.wait()


def pinned(core: int) -> Callable[[], None]:
    """What a new process does before it begins: it takes its core, goes before others if it may, and ends when this one ends.

    Where Linux weighs sessions against each other and not processes (sched(7), autogroup), priority is asked for the session.
    """

    def begin() -> None:
        os.setsid()
        os.sched_setaffinity(0, {core})
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
            Path("/proc/self/autogroup").write_text("-10")
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return begin


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes] | subprocess.Popen[str]", seconds: float = 60) -> None:
    """Until the port takes connections: the one thing here that is tried again and again, once a millisecond."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start") from None
            time.sleep(0.001)


class Others:
    """How much of the machine other processes have used since this was made. Read it when all servers have ended."""

    def __init__(self) -> None:
        self._begin = self._now()

    def share(self) -> float:
        wall, busy, own = (now - before for now, before in zip(self._now(), self._begin, strict=True))
        return max(0.0, busy - own) / wall / (os.cpu_count() or 1)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        busy = sum(fields[:8]) - fields[3] - fields[4]  # without idle and waiting for disks (proc_stat(5))
        times = os.times()
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), sum(times[:4])
