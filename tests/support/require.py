"""Real programs that some tests need. Without one, a test is skipped; where SIDESTREAM_REQUIRE=all is set, it fails."""

import os
import shutil
from typing import NoReturn

import pytest


def require(program: str) -> str:
    """The path of a program on this machine; skips or fails the test without it."""
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything has to be there."""
    if os.environ.get("SIDESTREAM_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)
