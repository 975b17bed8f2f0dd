"""What docs/testing.md shows is run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_its_two_examples() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["open_stream", "FakeServer"])
async def test_the_example_runs(block: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(block, "docs/testing.md", "exec"), names)
    tests = [names[name] for name in names if name.startswith("test_")]
    assert len(tests) == 1
    await tests[0]()
