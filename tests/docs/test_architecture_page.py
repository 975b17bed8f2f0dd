"""docs/architecture.md can't drift: what it links to is there, and every module stands in its picture."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LINKS = sorted(set(re.findall(r"\[`([^`]+)`\]\(\.\./([^)]+)\)", PAGE)))


def test_the_page_has_links() -> None:
    assert len(LINKS) > 15


@pytest.mark.parametrize(("name", "path"), LINKS)
def test_what_is_linked_is_defined_there(name: str, path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("floor", ["sse", "sidecar", "handlers"])
def test_every_module_and_folder_of_a_floor_stands_in_the_picture(floor: str) -> None:
    picture = re.search(r"┌─.*?\n\n", PAGE, re.S)
    assert picture is not None
    rooms = {path.stem for path in (ROOT / floor).iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    words = set(re.findall(r"\w+", picture[0]))
    assert rooms - {"__init__"} <= words
