"""The servers that are measured, on sensible production settings: how each is started, and what it needs of the machine.

A peer's program is one file in `bench/peers`. It reads the parameters of `GET /bench` and writes its events to the byte; where
it can, it also serves `GET /watch` and `POST /publish`: one event to all who watch. All are pinned to one core, so one worker.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from urllib.request import Request, urlopen

from bench.harness import Running, running

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench" / "peers"


@dataclass(frozen=True, slots=True)
class Watch:
    """Where a stream is watched by many, where its events are posted as which type, and what stands around one in the body."""

    path: str
    publish: str
    content_type: str = "text/plain"
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """command: of a port. lacks: what this machine is missing for it. version: what is measured. watch: opens a stream that
    many watch."""

    name: str
    command: Callable[[int], list[str]]
    about: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT
    lacks: Callable[[], str] = lambda: ""
    version: Callable[[], str] = lambda: ""
    watch: Callable[[int], Watch] = lambda port: Watch("/watch", "/publish")

    @contextmanager
    def run(self, **env: str) -> Iterator[Running]:
        with running(self.command, self.directory, {"PYTHONPATH": str(self.directory), **self.env, **env}) as server:
            yield server


# -- Python


def python(variable: str, environment: str) -> str:
    """The interpreter that has the peers' packages: the variable's, or that of the environment that `make bench` has made."""
    return os.environ.get(variable) or str(ROOT / environment / "bin" / "python")


PEERS_PYTHON = python("BENCH_PYTHON", ".venv-peers")
LITELLM_PYTHON = python("BENCH_LITELLM", ".venv-litellm")


@cache
def versions(interpreter: str, *packages: str) -> dict[str, str]:
    """The versions of these packages there; without those that are missing."""
    code = (
        "import json, sys\nfrom importlib.metadata import PackageNotFoundError, version\nfound = {}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    try:
        run = subprocess.run([interpreter, "-c", code, *packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = json.loads(run.stdout)
    return found


def uvicorn(module: str, interpreter: str = sys.executable) -> Callable[[int], list[str]]:
    options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error", "--no-server-header")
    return lambda port: [interpreter, "-m", "uvicorn", module, "--port", str(port), *options]


def missing_packages(interpreter: str, *packages: str) -> str:
    found = versions(interpreter, *packages)
    lacking = [package for package in packages if package not in found]
    return (
        f"{' and '.join(lacking)} not installed (make bench installs what bench/peers/requirements.txt lists)"
        if lacking
        else ""
    )


def packages_of(interpreter: str, *packages: str) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions(interpreter, *packages).items())


def on_uvicorn(name: str, module: str, package: str, about: str, env: Mapping[str, str] | None = None) -> Server:
    return Server(
        name,
        uvicorn(f"bench.peers.{module}:app", PEERS_PYTHON),
        about,
        env or {},
        lacks=partial(missing_packages, PEERS_PYTHON, package, "uvicorn"),
        version=partial(packages_of, PEERS_PYTHON, package),
    )


# -- Sidestream, and what it is measured against


def published_stream(port: int) -> Watch:
    with urlopen(Request(f"http://127.0.0.1:{port}/streams", method="POST")) as response:
        url = json.load(response)["url"]
    return Watch(url, f"{url}/events", "application/x-ndjson", '{"data":', "}")


def sidestream(directory: Path = ROOT, name: str = "Sidestream") -> Server:
    """The whole service, by its own server. directory: a checkout of it."""
    return Server(
        name,
        lambda port: ["env", f"SIDESTREAM_PORT={port}", sys.executable, "app.py"],
        "the whole service: `python app.py`",
        {"SIDESTREAM_LOG_LEVEL": "error", "SIDESTREAM_DRAIN": "0", "SIDESTREAM_MAX_STREAMS": "10000"},
        directory,
        watch=published_stream,
    )


SIDESTREAM = sidestream()
BARE = Server("bare ASGI", uvicorn("bench.peers.bare:app"), "one ASGI callable, one `send` for each event")
RAW_PROXY = Server("raw proxy", uvicorn("bench.peers.raw_proxy:app"), "one ASGI callable that passes on the bytes of httpx2")


# -- other languages


def lacks_program(program: str, package: str) -> str:
    return "" if shutil.which(program) else f"{program} is not installed ({package})"


def told(*command: str) -> str:
    """The version in what a program says of itself."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", run.stdout + run.stderr)
    return f"{Path(command[0]).name} {found[0]}" if found else ""


@cache
def temporary() -> Path:
    """A directory that is removed when this process ends."""
    _kept.append(tempfile.TemporaryDirectory(prefix="bench-"))
    return Path(_kept[-1].name)


_kept: list["tempfile.TemporaryDirectory[str]"] = []


@cache
def go_program() -> str:
    program = temporary() / "go-peer"
    environment = {"HOME": str(temporary()), "GOFLAGS": "-mod=mod", **os.environ, "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", str(program), str(PEERS / "main.go")], check=True, env=environment)
    return str(program)


NCHAN_MODULES = [Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"), Path("/usr/local/lib/nginx/modules")]


def nchan_module() -> Path | None:
    return next((place for place in NCHAN_MODULES if (place / "ngx_nchan_module.so").exists()), None)


def nchan_command(port: int) -> list[str]:
    directory = temporary() / f"nchan-{port}"
    directory.mkdir()
    text = (PEERS / "nchan.conf").read_text().replace("PORT", str(port)).replace("MODULES", str(nchan_module()))
    (directory / "nginx.conf").write_text(text)
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]


def lacks_nchan() -> str:
    return lacks_program("nginx", "nginx") or ("" if nchan_module() else "nginx has no nchan (libnginx-mod-nchan)")


NCHAN = Server("nchan", nchan_command, "nginx with nchan", lacks=lacks_nchan, version=lambda: f"nchan on {told('nginx', '-v')}")
PEERS_OF_STREAMS = (
    BARE,
    on_uvicorn("Starlette", "starlette", "starlette", "StreamingResponse"),
    on_uvicorn("FastAPI", "fastapi_sse", "fastapi", "its own server-sent events, `fastapi.sse`"),
    on_uvicorn("sse-starlette", "sse_starlette", "sse-starlette", "EventSourceResponse"),
    on_uvicorn("Litestar", "litestar", "litestar", "ServerSentEvent"),
    Server(
        "aiohttp-sse",
        lambda port: [PEERS_PYTHON, "-m", "bench.peers.aiohttp_sse", str(port)],
        "on aiohttp's server with uvloop",
        lacks=partial(missing_packages, PEERS_PYTHON, "aiohttp-sse", "uvloop"),
        version=partial(packages_of, PEERS_PYTHON, "aiohttp-sse", "aiohttp"),
    ),
    Server(
        "Node",
        lambda port: ["node", str(PEERS / "node.mjs"), str(port)],
        "its own `http`",
        lacks=partial(lacks_program, "node", "nodejs"),
        version=partial(told, "node", "--version"),
    ),
    Server(
        "Go",
        lambda port: [go_program(), str(port)],
        "its own `net/http`",
        lacks=partial(lacks_program, "go", "golang-go"),
        version=partial(told, "go", "version"),
    ),
)
FASTAPI_PROXY = on_uvicorn("FastAPI proxy", "fastapi_proxy", "fastapi", "the openai SDK's objects, written anew")
LITELLM = Server(
    "LiteLLM",
    lambda port: [
        *(LITELLM_PYTHON, "-m", "litellm.proxy.proxy_cli", "--config", str(PEERS / "litellm.yaml")),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
    ],
    "its proxy",
    {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    },
    lacks=lambda: missing_packages(LITELLM_PYTHON, "litellm"),
    version=partial(packages_of, LITELLM_PYTHON, "litellm"),
)
