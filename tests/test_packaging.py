"""What a wheel of this project holds, and that every version it is tested with is pinned."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sse

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][0-9.]*)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel, built from a copy: building leaves files beside the source."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "app.py"):
        shutil.copy(ROOT / name, source)
    for name in ("sse", "sidecar", "handlers"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out), "."]
    run = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    [built] = out.iterdir()
    assert built.name == f"sidestream-{sse.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built) as archive:
        yield archive


def requirements() -> Iterator[Requirement]:
    """Every requirement in pyproject.toml, whoever has it."""
    lists = [
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    for requirement in (requirement for some in lists for requirement in some if isinstance(requirement, str)):
        yield Requirement(requirement)


def test_the_wheel_ships_sse_alone_and_whole(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sse").rglob("*.py")}
    assert shipped == sources | {"sse/py.typed", "sse/redis.lua"}


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == ("sidestream", sse.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    needed = {Requirement(value) for value in metadata.get_all("Requires-Dist", [])}
    assert {need.name for need in needed if "extra" not in str(need.marker)} == {
        Requirement(need).name for need in PROJECT["project"]["dependencies"]
    }
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("pyproject.toml", r'^version = "(.*)"$'),
        ("Containerfile", r'image\.version="(.*?)"'),
        ("deploy/kubernetes.yaml", r"image: sidestream:(.*)"),
        ("deploy/kubernetes-redis.yaml", r"image: sidestream:(.*)"),
        ("CHANGELOG.md", r"^## (.*)$"),
    ],
)
def test_the_version_is_the_same_wherever_it_stands(file: str, place: str) -> None:
    found = re.search(place, (ROOT / file).read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == sse.__version__


def test_the_constraints_are_names_and_versions_and_nothing_else() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def test_every_requirement_is_pinned_at_a_version_it_allows() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pins = {canonicalize_name(match["name"]): match["version"] for match in PIN.finditer(constraints)}
    loose = [str(need) for need in requirements() if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))]
    assert loose == []


def test_the_pythons_are_the_same_wherever_they_stand() -> None:
    classified = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    [looked_for] = re.findall(r"for version in ([0-9. ]+); do", (ROOT / "venv.sh").read_text())
    assert looked_for.split() == classified[::-1]
    assert PROJECT["project"]["requires-python"] == f">={classified[0]}"
