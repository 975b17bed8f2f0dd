"""Packages from npm, for tests of clients in JavaScript. Each set is installed once, outside the repository.

folder = await installed("ai@5.0.277", "zod@4.1.12")
await node(folder, script, stdin)                  what a module prints, run by node
await bundled(folder, path, output)                a page's module and all that it imports, as one file; the set needs esbuild
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.require import missing, require

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidestream-tests" / "npm"
ESBUILD = "esbuild@0.28.2"

_INSTALL = ("install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")


async def installed(*packages: str) -> Path:
    """The folder with these packages, each `name@version`. Skips the test, or fails it, where npm can't install them."""
    npm, _ = require("npm"), require("node")
    folder = CACHE / hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:16]
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=CACHE))
        (fresh / "package.json").write_text('{"private": true}')
        try:
            await _run(npm, *_INSTALL, *packages, cwd=fresh, timeout=300)
        except (AssertionError, TimeoutError) as error:
            shutil.rmtree(fresh)
            missing(f"npm can't install {', '.join(packages)}: {error}")
        try:
            fresh.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(fresh)
    return folder


async def node(folder: Path, script: str, stdin: bytes = b"") -> str:
    """What an ES module prints that may import the folder's packages."""
    return await _run(require("node"), "--input-type=module", "--eval", script, cwd=folder, stdin=stdin)


async def bundled(folder: Path, entry: Path, output: Path) -> None:
    """Bundle a module for a browser. Its packages are the folder's, wherever it stands."""
    options = ("--bundle", "--format=esm", "--jsx=automatic", '--define:process.env.NODE_ENV="production"', "--log-level=error")
    esbuild = str(folder / "node_modules" / ".bin" / "esbuild")
    await _run(esbuild, str(entry), *options, f"--outfile={output}", cwd=folder, NODE_PATH=str(folder / "node_modules"))


async def _run(*command: str, cwd: Path, stdin: bytes = b"", timeout: float = 60, **env: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **env}
    )
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode(errors="replace")[-2000:]
    return output.decode()
