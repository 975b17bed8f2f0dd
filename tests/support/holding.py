"""A tool for the sidecar under test: `hold`, which keeps a connection to the test open for as long as it runs.

SIDESTREAM_TOOLS=tests.support.holding HOLD_PORT=<a port>
"""

import asyncio
import os

from sidecar.functions import function


@function
async def hold() -> None:
    """Run until it is cancelled."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["HOLD_PORT"]))
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        writer.close()
