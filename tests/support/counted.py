"""python tests/support/counted.py: the sidecar as `python app.py` starts it. At SIGUSR1 it says how many tasks it has.

async with sidecar(command=COMMAND) as server: await tasks_of(server)
"""

import asyncio
import os
import re
import runpy
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.servers import Server

COMMAND = (sys.executable, str(Path(__file__)))


async def tasks_of(server: "Server") -> int:
    """The asyncio tasks in the server's process now."""
    said = len(server.stderr)
    os.kill(server.pid, signal.SIGUSR1)
    async with asyncio.timeout(10):
        while not (found := [match for line in server.stderr[said:] if (match := re.fullmatch(r"tasks: (\d+)", line))]):
            await asyncio.sleep(0.01)
    return int(found[0][1])


def tell(*_: Any) -> None:
    print(f"tasks: {len(asyncio.all_tasks())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    root = str(Path(__file__).parents[2])
    sys.path[0] = root
    signal.signal(signal.SIGUSR1, tell)
    runpy.run_path(f"{root}/app.py", run_name="__main__")
