"""docs/front-ends.md: the lines that it explains are in examples/robust.js, and what it says of the API is so."""

import re
from pathlib import Path

from tests.support.app import ROUTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "front-ends.md").read_text()


def test_every_line_that_is_explained_is_there() -> None:
    explained = re.findall(r"^\| `([^`]+)` \| [A-Z]", PAGE.split("## What makes a page robust")[1], re.MULTILINE)
    code = (ROOT / "examples" / "robust.js").read_text()
    assert len(explained) > 8
    assert [line for line in explained if line not in code] == []


def test_the_paths_are_routes() -> None:
    paths = set(re.findall(r"(?:GET|POST|DELETE) (/\S+?)[`:\s]", PAGE))
    known = {re.sub(r"{\w+}", "{}", route.path) for route in ROUTES}
    assert paths
    assert {re.sub(r"{\w+}", "{}", path) for path in paths} <= known


def test_the_pages_are_built_as_the_tests_build_them() -> None:
    tests = {
        name: (ROOT / "tests" / name).read_text() for name in ("support/npm.py", "e2e/test_use_chat.py", "e2e/test_ag_ui.py")
    }
    commands = PAGE.replace("\\\n", " ")
    packages = set(re.findall(r"\S+@\d\S+", " ".join(re.findall(r"npm install (.*)", commands))))
    assert len(packages) == 7
    assert [package for package in packages if f'"{package}"' not in "".join(tests.values())] == []
    options = set(re.findall(r"--\S+", " ".join(re.findall(r"npx --prefix build (.*)", commands))))
    given = {re.sub(r"=build/.*", "=", option.rstrip("'")) for option in options}
    assert [option for option in given if option not in tests["support/npm.py"]] == []


def test_the_examples_that_it_names_are_there() -> None:
    named = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    assert [name for name in named if not (ROOT / name).exists()] == []
