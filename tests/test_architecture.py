"""The rules between modules, read from the source: who imports whom, who touches receive and send, how long things are."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("sse", "sidecar", "handlers")
RUNTIME = sorted([ROOT / "app.py", *(path for floor in FLOORS for path in ROOT.glob(f"{floor}/**/*.py"))])

LAYERS = [
    ("sse.wire", {"sse.wire", "sse.errors"}),
    ("sse.log", {"sse.wire", "sse.errors"}),
    ("sse.formats", {"sse.wire", "sse.errors"}),
    ("sse.resume", {"sse.errors"}),
    ("sse.state", set()),
    ("sse.stream", {"sse.wire", "sse.errors", "sse.log", "sse.formats", "sse.state"}),
    ("sse.store", {"sse.wire", "sse.errors", "sse.log", "sse.formats", "sse.state", "sse.stream"}),
    ("sse.asgi", {"sse.errors"}),
    ("sse.http", {"sse.wire", "sse.errors", "sse.asgi"}),
    ("sse.eager", set()),
    ("sse.sender", {"sse.wire", "sse.errors", "sse.asgi", "sse.log", "sse.eager"}),
    ("sse.threads", {"sse.errors"}),
    ("sse.merge", {"sse.errors"}),
]
"""A module, and what of this project it may import; first match counts."""


AWAITS_ASGI = {"sse.asgi", "sse.http", "sse.sender", "sse.watch", "sse.testing"}
"""Who may await receive or send; testing is the other side."""

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports name their modules in full"
            assert not node.level, "imports name their modules in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(names: Iterator[str]) -> set[str]:
    """The modules of this project among the names imported."""
    return set(names) & modules()


def modules() -> set[str]:
    return {name_of(path) for path in RUNTIME}


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def broken_rules(module: str, source: str) -> list[str]:
    """Every rule that this module's source breaks, in words."""
    tree = ast.parse(source)
    imported = set(imports(tree))
    mine = own(iter(imported)) - {"sse", "handlers"}
    broken = []
    for layer, allowed in LAYERS:
        if within(module, {layer}):
            broken += [f"imports {name}" for name in sorted(mine) if not within(name, allowed | {layer})]
            break
    if within(module, {"sse"}):
        broken += [
            f"imports {name}"
            for name in sorted(imported)
            if name.split(".")[0] in ("sidecar", "handlers", "app", "openai", "uvicorn")
        ]
        # `from sse import Stream` would go round the layers
        broken += [f"imports {name}" for name in sorted(imported - modules()) if re.fullmatch(r"sse\.\w+", name)]
    if within(module, {"sse.wire"}):
        broken += [
            f"imports {name}"
            for name in sorted(imported)
            if name.split(".")[0] in ("asyncio", "time", "socket", "threading", "random")
        ]
        broken += ["has an async def" for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    if within(module, {"sidecar"}):
        broken += [f"imports {name}" for name in sorted(mine) if within(name, {"handlers", "app"})]
    if within(module, {"handlers"}):
        feature = ".".join(module.split(".")[:2])
        broken += [
            f"imports {name}" for name in sorted(mine) if within(name, {"handlers", "app"}) and not within(name, {feature})
        ]
    if module not in AWAITS_ASGI:
        broken += [f"awaits {name}" for name in awaited(tree) if name in ("receive", "send")]
    broken += [f"imports {name} at its top" for name in top_level(tree) if name.split(".")[0] == "openai"]
    return broken


def awaited(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            function = node.value.func
            # A bare name, or one of those attributes: the `send` of somebody's HTTP client is another one.
            yield {"receive": "receive", "_receive": "receive", "_send": "send"}.get(
                getattr(function, "attr", ""), getattr(function, "id", "")
            )


def top_level(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))


def lines_of_code(source: str) -> int:
    """Lines that are neither blank, nor comments, nor docstrings."""
    tree = ast.parse(source)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = source.splitlines()
    return sum(
        1 for number, line in enumerate(lines, 1) if number not in prose and line.strip() and not line.strip().startswith("#")
    )


@pytest.mark.parametrize("path", RUNTIME, ids=name_of)
def test_a_module_keeps_the_rules(path: Path) -> None:
    assert broken_rules(name_of(path), path.read_text()) == []


@pytest.mark.parametrize("path", RUNTIME, ids=name_of)
def test_a_module_and_its_functions_can_be_read_in_one_sitting(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= LONGEST_MODULE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", RUNTIME, ids=name_of)
def test_a_module_opens_by_saying_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


CLIENT_HALF = {"sse.__main__", "sse.client", "sse.testing"}


def test_the_runtime_grows_only_on_purpose() -> None:
    """Lines of code; what is not code (docstrings, comments, blank lines) costs a reader nothing."""
    lines = {name_of(path): lines_of_code(path.read_text()) for path in RUNTIME}
    sse = {name: count for name, count in lines.items() if within(name, {"sse"})}
    assert sum(count for name, count in sse.items() if name not in CLIENT_HALF) < 1800, sse
    assert sum(sse.values()) < 2600, sse
    assert sum(lines.values()) < 6000, lines


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("sse.wire.parser", "import asyncio", ["imports asyncio"]),
        ("sse.wire.parser", "async def feed(): ...", ["has an async def"]),
        ("sse.wire.parser", "from sse.log import EventLog", ["imports sse.log"]),
        ("sse.log", "from sse.stream import Stream", ["imports sse.stream"]),
        ("sse.log", "from sse import Stream", ["imports sse.Stream"]),
        ("sse.log", "from sse.wire import Event", []),
        ("sse.watch", "from sidecar import server", ["imports sidecar.server"]),
        (
            "sse.stream",
            "from sidecar.service import Service",
            ["imports sidecar.service"],
        ),
        ("handlers.basic", "from handlers import bench", ["imports handlers.bench"]),
        ("handlers.basic", "from app import find", ["imports app"]),
        ("handlers.basic", "async def f(send): await send({})", ["awaits send"]),
        ("handlers.chat.upstream.openai_sdk", "import openai", ["imports openai at its top"]),
        ("handlers.chat.upstream.openai_sdk", "def load():\n    import openai", []),
        ("handlers.chat.engine", "from handlers.chat import items", []),
        ("sidecar.service", "from handlers import basic", ["imports handlers.basic"]),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, broken: list[str]) -> None:
    assert set(broken) <= set(broken_rules(module, source))
    assert bool(broken) == bool(broken_rules(module, source))


def test_what_is_counted_is_code() -> None:
    assert lines_of_code('"""Prose.\n\nMore."""\n\n# why\nx = 1  # one\n\ndef f():\n    "says"\n    return 2\n') == 3


def test_nothing_heavy_is_imported_on_the_way_to_the_first_byte() -> None:
    heavy = {"openai", "httpx2", "pydantic", "prometheus_client", "anyascii"}
    code = f"import sys, app; from sidecar import server; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
