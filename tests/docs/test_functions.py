"""The functions that README and the module's own docstring show as examples can be loaded as they stand."""

import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

from sidecar import functions

ROOT = Path(__file__).parents[2]
PLACES = {"README": (ROOT / "README.md").read_text(), "sidecar.functions": inspect.getdoc(functions) or ""}
TYPING = "from typing import Annotated, Literal\n"


@pytest.mark.parametrize("text", PLACES.values(), ids=PLACES.keys())
def test_the_example_can_be_loaded(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indented = re.findall(r"(?:^ {4}.*\n|^\n)+", text, re.MULTILINE)
    (block,) = [block for block in indented if "from sidecar.functions import" in block]
    (tmp_path / "example_of_functions.py").write_text(TYPING + textwrap.dedent(block))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example_of_functions", raising=False)
    found = functions.load("SIDESTREAM_JOBS", ("example_of_functions",))
    assert {"lookup", "render"} == set(found)
    assert (found["lookup"].timeout, found["render"].description) == (5, "Render a report.")
    found["render"].check({"pages": 3, "paper": "a5"})
