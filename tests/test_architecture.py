"""The rules between modules, read from the source: who imports whom, who touches receive and send, how long things are.

    app.py ──► handlers/ ──► sidecar/ ──► sse/        each floor imports from those below it, and from its own

Each rule is a function from source to what breaks it, in words. One test shows that the project breaks none, another one that
it can be broken.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("sse", "sidecar", "handlers", "app")
"""From the lowest to the highest."""

PACKAGES = {"bench", "examples", "handlers", "sidecar", "sse", "tests"}
"""The folders at the top that hold Python; deploy/ and docs/ hold none."""

RUNTIME = sorted([ROOT / "app.py", *(path for floor in FLOORS for path in ROOT.glob(f"{floor}/**/*.py"))])

LAYERS = [
    ("sse.wire", {"sse.wire", "sse.errors"}),
    ("sse.budget", {"sse.errors"}),
    ("sse.log", {"sse.errors", "sse.budget"}),
    ("sse.formats", {"sse.wire", "sse.errors"}),
    ("sse.resume", {"sse.errors"}),
    ("sse.timers", set()),
    ("sse.ids", set()),
    ("sse.crowd", {"sse.wire", "sse.asgi", "sse.log", "sse.eager", "sse.timers"}),
    ("sse.stream", {"sse.wire", "sse.errors", "sse.budget", "sse.log", "sse.formats", "sse.crowd", "sse.timers", "sse.ids"}),
    ("sse.store", {"sse.wire", "sse.errors", "sse.budget", "sse.log", "sse.formats", "sse.stream", "sse.timers"}),
    ("sse.entries", {"sse.wire", "sse.formats", "sse.stream"}),
    ("sse.mirror", {"sse.wire", "sse.errors", "sse.budget", "sse.log", "sse.stream", "sse.entries"}),
    ("sse.pipeline", {"sse.store", "sse.entries", "sse.connections"}),
    ("sse.replica", {"sse.errors", "sse.formats", "sse.stream", "sse.entries", "sse.pipeline"}),
    ("sse.questions", {"sse.wire", "sse.errors", "sse.store", "sse.stream", "sse.mirror"}),
    ("sse.connections", {"sse.errors", "sse.store"}),
    ("sse.asgi", {"sse.errors"}),
    ("sse.accept", set()),
    ("sse.http", {"sse.budget", "sse.wire", "sse.errors", "sse.asgi", "sse.accept"}),
    ("sse.eager", set()),
    ("sse.sender", {"sse.wire", "sse.errors", "sse.asgi", "sse.log", "sse.eager", "sse.crowd", "sse.timers"}),
    ("sse.threads", {"sse.errors"}),
    ("sse.merge", {"sse.errors"}),
    ("sidecar.origins", set()),
    ("sidecar.settings", {"sidecar.origins"}),
    ("sidecar.access", {"sse", "sidecar.settings", "sidecar.origins"}),
    ("sidecar.counts", {"sse"}),
    ("sidecar.logs", {"sse"}),
    ("sidecar.service", {"sse", "sidecar.settings", "sidecar.counts", "sidecar.logs"}),
    ("sidecar.request", {"sse", "sidecar.service"}),
    ("sidecar.conversations", {"sse"}),
    (
        "sidecar.answers",
        {"sse", "sidecar.request", "sidecar.service", "sidecar.counts", "sidecar.logs", "sidecar.conversations"},
    ),
    ("sidecar.routes", {"sse", "sidecar.access", "sidecar.request"}),
    ("sidecar.connection", {"sse"}),
    ("sidecar.listener", {"sidecar.settings", "sidecar.origins"}),
    ("sidecar.server", {"sse", "sidecar.settings", "sidecar.logs", "sidecar.connection", "sidecar.listener"}),
]
"""A module, and what of this project it may import; first match counts. Of the others, the floors alone are said."""

APART = [("handlers.chat.formats", "handlers.chat.upstream")]
"""Neither knows the other: they meet in `items`."""

APART_BUT: set[tuple[str, str]] = set()
"""Where that doesn't hold yet. Only to become shorter: an entry that isn't needed any more is a failure."""

SANS_IO = ("asyncio", "time", "socket", "threading", "random")
"""What `sse.wire` does without."""

IMPORTED_BY = {
    "uvicorn": {"sidecar.server", "sidecar.connection"},
    "openai": {"handlers.chat.upstream"},
    "redis": {"sse.pipeline", "sse.connections"},
    "sse.redis": {"sidecar.service"},
}
"""A library, and the modules that alone know it."""

AWAITS_ASGI = {"sse.asgi", "sse.chunks", "sse.http", "sse.sender", "sse.watch", "sse.testing"}
"""Who may await receive or send; testing is the other side."""

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
"""Lines."""

CLIENT_HALF = {"sse.__main__", "sse.client", "sse.probe", "sse.testing"}

FIGURES = {"all of it": 6313, "sse": 2409, "sse without its client": 1863}
"""Lines of code that have been reached. They only go down; new work that needs more makes room for itself."""

OWN_FIGURES: dict[str, int] = {
    "handlers.chat.fields": 106,
    "handlers.chat.upstream.body": 123,
    "handlers.chat.upstream.environment": 36,
    "handlers.chat.upstream.models": 23,
    "handlers.chat.upstream.transport": 91,
    "handlers.chat.upstream.addresses": 53,
    "handlers.chat.upstream.connection": 152,
    "handlers.chat.upstream.http_client": 47,
    "handlers.chat.formats.ag_ui": 192,
    "handlers.chat.formats.spans": 43,
    "handlers.chat.formats.usage": 17,
    "handlers.chat.formats.ui_messages": 229,
    "sidecar.connection": 217,
    "sidecar.conversations": 34,
    "sidecar.origins": 52,
    "sse.accept": 13,
    "sse.budget": 44,
    "sse.crowd": 89,
    "sse.timers": 46,
    "sse.wire.document": 70,
    "handlers.chat.samples": 47,
    "handlers.page.front": 39,
    "handlers.page.lab": 63,
    "handlers.page.lessons": 20,
    "handlers.page.state": 33,
    "sse.chunks": 20,
    "sse.probe": 146,
    "sse.redis": 204,
    "sse.entries": 107,
    "sse.mirror": 102,
    "sse.pipeline": 49,
    "sse.replica": 69,
    "sse.questions": 79,
    "sse.connections": 105,
    "handlers.chat.formats.responses": 215,
    "handlers.chat.responses": 265,
}
"""New modules, by name: the figures above are without them."""

SLACK = 15
"""A figure that is so far above what is there is taken down to it."""


# -- what is read


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text() for path in RUNTIME}


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything imported anywhere: at the top, in a function, for type checking."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports name their modules in full"
            assert not node.level, "imports name their modules in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(names: Iterable[str]) -> set[str]:
    """The modules of this project among the names imported."""
    return set(names) & SOURCES.keys()


def within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def floor_of(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


# -- the rules of imports


def broken_rules(module: str, source: str) -> list[str]:
    """Every rule of imports that this module's source breaks, in words."""
    tree = ast.parse(source)
    names = set(imports(tree))
    return [
        *(f"imports {name}" for name in sorted(own(names)) if not may_import(module, name)),
        # `from sse import Stream` would go round the layers
        *(f"imports {name}" for name in sorted(names - SOURCES.keys()) if goes_round(module, name)),
        *(f"imports {name}" for name in sorted(names) if is_foreign(module, name)),
        *(f"imports {name} at its top" for name in sorted(top_level(tree)) if within(name, ["openai"])),
        *(f"awaits {name}" for name in awaited(tree) if module not in AWAITS_ASGI and name in ("receive", "send")),
        *("has an async def" for node in ast.walk(tree) if is_async(node) and within(module, ["sse.wire"])),
    ]


def may_import(module: str, name: str) -> bool:
    """Whether a module may import another one of this project."""
    if floor_of(name) > floor_of(module):
        return False
    if within(module, ["handlers"]) and within(name, ["handlers"]) and feature(name) != feature(module):
        return False
    for one, other in [*APART, *((other, one) for one, other in APART)]:
        if within(module, [one]) and within(name, [other]) and (module, name) not in APART_BUT:
            return False
    for layer, allowed in LAYERS:
        if within(module, [layer]):
            return name == "sse" or within(name, {*allowed, layer})
    return True


def feature(module: str) -> str:
    """`handlers.chat` of `handlers.chat.upstream.calls`."""
    return ".".join(module.split(".")[:2])


def goes_round(module: str, name: str) -> bool:
    return within(module, ["sse"]) and re.fullmatch(r"sse\.\w+", name) is not None


def is_foreign(module: str, name: str) -> bool:
    if within(module, ["sse.wire"]) and within(name, SANS_IO):
        return True
    return any(within(name, [library]) and not within(module, modules) for library, modules in IMPORTED_BY.items())


def is_async(node: ast.AST) -> bool:
    return isinstance(node, ast.AsyncFunctionDef)


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


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_keeps_the_rules_of_imports(module: str) -> None:
    assert broken_rules(module, SOURCES[module]) == []


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        # the floors
        ("sse.watch", "from sidecar import server", ["imports sidecar.server"]),
        ("sse.stream", "from sidecar.service import Service", ["imports sidecar.service"]),
        ("sse.stream", "def f():\n    from sidecar.service import Service", ["imports sidecar.service"]),
        ("sse.client", "import handlers.basic", ["imports handlers.basic"]),
        ("sse.client", "import app", ["imports app"]),
        ("sidecar.service", "from handlers import basic", ["imports handlers.basic"]),
        ("sidecar.server", "from app import Sidestream", ["imports app"]),
        ("sidecar.server", "if TYPE_CHECKING:\n    from app import Sidestream", ["imports app"]),
        ("handlers.basic", "from app import routes", ["imports app"]),
        ("handlers.basic", "from sidecar import answers\nfrom sse.http import Request", []),
        ("app", "from handlers import basic\nfrom sidecar import access\nfrom sse import resume", []),
        # the features
        ("handlers.basic", "from handlers import bench", ["imports handlers.bench"]),
        ("handlers.chat.engine", "from handlers.jobs.job import Job", ["imports handlers.jobs.job"]),
        ("handlers.chat.engine", "from handlers.chat import items", []),
        # formats and upstream
        ("handlers.chat.formats.plain", "from handlers.chat.upstream import calls", ["imports handlers.chat.upstream.calls"]),
        ("handlers.chat.upstream.calls", "from handlers.chat.formats import typed", ["imports handlers.chat.formats.typed"]),
        ("handlers.chat.formats.plain", "from handlers.chat import items", []),
        # the layers
        ("sse.wire.parser", "from sse.log import EventLog", ["imports sse.log"]),
        ("sse.log", "from sse.stream import Stream", ["imports sse.stream"]),
        ("sse.log", "from sse import Stream", ["imports sse.Stream"]),
        ("sse.log", "from sse.budget import Budget", []),
        ("sidecar.service", "from sidecar.answers import open", ["imports sidecar.answers"]),
        ("sidecar.server", "from sidecar.answers import open", ["imports sidecar.answers"]),
        # libraries
        ("sse.wire.parser", "import asyncio", ["imports asyncio"]),
        ("sse.watch", "import uvicorn", ["imports uvicorn"]),
        ("sse.client", "from openai import OpenAI", ["imports openai", "imports openai.OpenAI", "imports openai at its top"]),
        ("sidecar.listener", "from uvicorn.config import Config", ["imports uvicorn.config"]),
        ("handlers.chat.upstream.openai_sdk", "import openai", ["imports openai at its top"]),
        ("handlers.chat.upstream.openai_sdk", "def load():\n    import openai", []),
        # what is done
        ("sse.wire.parser", "async def feed(): ...", ["has an async def"]),
        ("handlers.basic", "async def f(send): await send({})", ["awaits send"]),
        ("handlers.basic", "async def f(self): await self._receive()", ["awaits receive"]),
        ("handlers.basic", "async def f(client): await client.send({})", []),
    ],
)
def test_the_rules_of_imports_can_be_broken(module: str, source: str, broken: list[str]) -> None:
    found = broken_rules(module, source)
    assert set(broken) <= set(found)
    assert bool(broken) == bool(found)


def test_no_module_has_an_exception_that_it_does_not_need() -> None:
    assert {(module, name) for module, name in APART_BUT if name not in imports(ast.parse(SOURCES.get(module, "")))} == set()


# -- circles


def circles(graph: Mapping[str, set[str]]) -> set[str]:
    """The modules from which an import leads back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [*graph[start]]
        while ahead:
            if (module := ahead.pop()) not in seen:
                seen.add(module)
                ahead += graph.get(module, ())
        return seen

    return {module for module in graph if module in reached(module)}


def test_no_import_leads_in_a_circle() -> None:
    """Those in functions and for type checking included: a circle that is hidden is one all the same."""
    assert circles({module: own(imports(ast.parse(source))) - {module} for module, source in SOURCES.items()}) == set()


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from app import Sidestream\ndef f():\n    import sse.log"
    assert own(imports(ast.parse(hidden))) == {"app", "sse.log"}


# -- where things are


def strays(names: Iterable[str]) -> list[str]:
    """Of the project's Python files, as paths: those at the top or in a folder that has no business there."""
    return [name for name in names if name != "app.py" and name.partition("/")[0] not in PACKAGES]


def test_nothing_stands_at_the_top_but_the_application_and_the_packages() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "app.py" in listed
    assert strays(listed) == []


def test_a_stray_would_be_seen() -> None:
    assert strays(["app.py", "server.py", "sse/log.py", "utils/x.py"]) == ["server.py", "utils/x.py"]


# -- how long things are


def too_long(source: str) -> list[str]:
    """The module and the functions of it that can't be read in one sitting."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION]
    return [*(["the module"] if source.count("\n") > LONGEST_MODULE else []), *long]


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_and_its_functions_can_be_read_in_one_sitting(module: str) -> None:
    assert too_long(SOURCES[module]) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("\n" * 400, []),
        ("\n" * 401, ["the module"]),
        ("def f():\n" + "    pass\n" * 59, []),
        ("def f():\n" + "    pass\n" * 60, ["f"]),
        ("class A:\n    async def g(self):\n" + "        pass\n" * 60, ["g"]),
    ],
)
def test_what_is_too_long_would_be_seen(source: str, expected: list[str]) -> None:
    assert too_long(source) == expected


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_opens_by_saying_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[module]))


def lines_of_code(source: str) -> int:
    """Lines that are neither blank, nor comments, nor docstrings: those cost a reader nothing."""
    tree = ast.parse(source)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = source.splitlines()
    return sum(
        1 for number, line in enumerate(lines, 1) if number not in prose and line.strip() and not line.strip().startswith("#")
    )


def counted(lines: Mapping[str, int]) -> dict[str, int]:
    """What stands against the figures. lines: of each module that has no figure of its own."""
    sse = {name: count for name, count in lines.items() if within(name, ["sse"])}
    return {
        "all of it": sum(lines.values()),
        "sse": sum(sse.values()),
        "sse without its client": sum(count for name, count in sse.items() if name not in CLIENT_HALF),
    }


def off(figures: Mapping[str, int], reached: Mapping[str, int]) -> dict[str, str]:
    """The figures that aren't kept, and those that can be taken down; and what to do."""
    return {
        name: f"has grown to {reached[name]} from {figure}"
        if reached[name] > figure
        else f"is {reached[name]}: take the figure of {figure} down"
        for name, figure in figures.items()
        if not figure - SLACK <= reached[name] <= figure
    }


def test_the_runtime_grows_only_on_purpose() -> None:
    lines = {module: lines_of_code(source) for module, source in SOURCES.items()}
    assert off(FIGURES, counted({name: count for name, count in lines.items() if name not in OWN_FIGURES})) == {}
    assert off(OWN_FIGURES, {name: lines.get(name, 0) for name in OWN_FIGURES}) == {}


def test_the_ratchet_goes_one_way() -> None:
    figures = {"sse": 100}
    assert off(figures, {"sse": 100}) == off(figures, {"sse": 100 - SLACK}) == {}
    assert off(figures, {"sse": 101}) == {"sse": "has grown to 101 from 100"}
    assert off(figures, {"sse": 99 - SLACK}) == {"sse": f"is {99 - SLACK}: take the figure of 100 down"}
    assert counted({"app": 1, "sse.log": 10, "sse.client": 100}) == {"all of it": 111, "sse": 110, "sse without its client": 10}


def test_what_is_counted_is_code() -> None:
    assert lines_of_code('"""Prose.\n\nMore."""\n\n# why\nx = 1  # one\n\ndef f():\n    "says"\n    return 2\n') == 3


# -- what is imported when


def test_nothing_heavy_is_imported_on_the_way_to_the_first_byte() -> None:
    heavy = {"openai", "httpx2", "pydantic", "prometheus_client", "anyascii"}
    code = f"import sys, app; from sidecar import server; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
