"""The kinds of jobs that are always offered: `steps`, which awaits, and `checksum`, which blocks a thread."""

import asyncio
import hashlib
from typing import Annotated, Any, Literal

from sidecar.functions import Between, function
from sse.threads import OnProgress


@function
async def steps(
    on_progress: OnProgress, count: Annotated[int, Between(1, 100_000)] = 100, interval: Annotated[float, Between(0, 60)] = 0.05
) -> dict[str, Any]:
    """A demonstration: counts from 0 to `count`, `interval` seconds a step."""
    for number in range(count + 1):
        if number:
            await asyncio.sleep(interval)
        on_progress("count", {"progress": 100 * number / count, "message": f"step {number} of {count}"})
    return {"steps": count + 1}


@function
def checksum(
    on_progress: OnProgress,
    mebibytes: Annotated[int, Between(1, 1 << 20)] = 256,
    algorithm: Literal["sha256", "sha512", "blake2b"] = "sha256",
) -> dict[str, Any]:
    """Blocks a thread: digests that much data, and reports as it goes."""
    digest, block = hashlib.new(algorithm), bytes(1 << 20)
    for number in range(mebibytes):
        digest.update(block)
        on_progress("digest", {"progress": 100 * (number + 1) / mebibytes, "mebibytes": number + 1})
    return {"algorithm": algorithm, "mebibytes": mebibytes, "hexdigest": digest.hexdigest()}
