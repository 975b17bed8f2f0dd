"""What all tests share: the event loop, the e2e mark, how thorough hypothesis is, and that what a test has left is freed."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.clock import VIRTUAL_TIME, Backend

settings.register_profile("quick", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "quick")

E2E = tuple(f"{Path(__file__).parent / folder}{os.sep}" for folder in ("e2e", "examples"))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str | Backend:
    """asyncio's event loop; with the mark `virtual_time`, the one whose time doesn't pass by itself."""
    return VIRTUAL_TIME if request.node.get_closest_marker("virtual_time") else "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(E2E):
            item.add_marker(pytest.mark.e2e)


def pytest_runtest_teardown() -> None:
    # The service has the garbage collector leave alone what is there once all is imported. Here that happens again and again:
    # the event loops and applications of hundreds of tests would stay, and whatever looks through all of them would get slow.
    gc.unfreeze()
