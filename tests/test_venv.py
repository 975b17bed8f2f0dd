"""venv.sh, with Pythons that it has to see through: shims without a version behind them, Debian without python3-venv."""

import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

VENV_SH = Path(__file__).parents[1] / "venv.sh"
NAMES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python")

SHIM = "echo 'no such version is installed' >&2; exit 127"
OLD = 'case $1 in --version) echo "Python 3.10.0" ;; *) exit 1 ;; esac'
# What follows says yes to `runs`, and to `is` where the version is its own.
VERSION = """
case $2 in *"!= '"*) case $2 in *"!= '{0}'"*) exit 0 ;; *) exit 1 ;; esac ;; esac
[ "$1" = --version ] && echo "Python {0}.0"
"""
# `-m venv` makes the directory and fails at ensurepip, as Debian's does.
HALF = (
    VERSION.format("3.12")
    + """
case "$1 $2" in
    *venv) mkdir -p "$3/bin"; echo 'ensurepip is not available'; exit 1 ;;
    "-c "*print*) echo python3.12 ;;
esac"""
)
# The environment is made. A pip that works installs pip, and fails at the packages unless it is told not to.
WHOLE = (
    VERSION.format("3.13")
    + """
case "$1 $2" in
    *venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip") echo "$*" >>log; case $* in *--version|*" pip") ;; *) exit ${PIP:-1} ;; esac ;;
    "-c "*print*) echo uvicorn ;;
esac"""
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine whose Pythons are what the test says; all others are hidden by shims."""

    root: Path

    def has(self, **pythons: str) -> None:
        """On the PATH."""
        for name in NAMES:
            self.write(self.root / "bin" / name, pythons.get(name, SHIM))

    def has_pyenv(self, **pythons: str) -> None:
        for version, python in pythons.items():
            self.write(self.root / "pyenv" / "versions" / version.replace("_", ".") / "bin" / "python", python)

    def write(self, path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", str(VENV_SH), *(arguments or (".venv", "run"))],
            cwd=self.root,
            env={"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(self.root / "pyenv"), **env},
            capture_output=True,
            text=True,
        )

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def installed(self) -> list[str]:
        """What pip was told to install."""
        return [
            line.partition("constraints.txt ")[2] for line in (self.root / "log").read_text().splitlines() if "install" in line
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path / "a path with spaces"
    (root / "pyenv").mkdir(parents=True)
    return Machine(root)


@pytest.mark.parametrize("pythons", [{}, {"python3": OLD}], ids=["only shims", "only an old one"])
def test_without_a_python_that_runs_there_is_one_clear_line(machine: Machine, pythons: dict[str, str]) -> None:
    machine.has(**pythons)
    run = machine.run()
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "Sidestream needs Python 3.11, 3.12, 3.13 or 3.14, and none of them is on the PATH.\n"
    assert not machine.venv.exists()


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_half_made_environment_is_removed_and_the_apt_line_printed(machine: Machine, left_behind: bool) -> None:
    machine.has(python3=HALF)
    if left_behind:
        (machine.venv / "bin").mkdir(parents=True)
    run = machine.run()
    assert run.returncode == 1
    assert "apt install python3.12-venv" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not machine.venv.exists()


def test_the_newest_python_that_runs_is_taken(machine: Machine) -> None:
    machine.has(**{"python3.13": WHOLE, "python3.12": HALF, "python3": HALF})
    run = machine.run()
    assert run.stdout.startswith("making .venv with Python 3.13.0\n")


def test_packages_that_cant_be_installed_are_one_clear_line(machine: Machine) -> None:
    machine.has(**{"python3.13": WHOLE})
    run = machine.run()
    assert run.returncode == 1
    reason = "is there a network, and a wheel of each for Python 3.13.0?"
    assert run.stderr == f"Not all packages could be installed: {reason}\n"


def test_a_pip_that_an_interrupted_run_left_old_is_renewed(machine: Machine) -> None:
    machine.has()
    machine.write(machine.venv / "bin" / "python", WHOLE)
    run = machine.run(PIP="0")
    assert (run.returncode, run.stdout) == (0, "installing into .venv to run…\n")
    assert machine.installed == ["pip", "uvicorn"]


def test_a_group_is_installed_with_what_the_service_needs(machine: Machine) -> None:
    machine.has(**{"python3.13": WHOLE})
    run = machine.run(".venv", "check", PIP="0")
    assert (run.returncode, machine.installed) == (0, ["pip", "--group check uvicorn"])


# -- one environment for each Python


@pytest.mark.parametrize("where", ["on the PATH", "as python3", "pyenv's"])
def test_an_environment_is_made_with_the_python_that_its_name_says(machine: Machine, where: str) -> None:
    machine.has(**{"python3.12": HALF} | ({"python3.13": WHOLE} if where == "on the PATH" else {}))
    if where == "as python3":
        machine.has(python3=WHOLE, python=HALF)
    elif where == "pyenv's":
        machine.has_pyenv(**{"3_12_1": HALF, "3_13_0": WHOLE})
    run = machine.run(".venv-3.13", "test", PIP="0")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("making .venv-3.13 with Python 3.13.0\n")


def test_without_that_python_there_is_one_clear_line(machine: Machine) -> None:
    machine.has(**{"python3.13": WHOLE})
    run = machine.run(".venv-3.14", "test")
    assert (run.returncode, run.stderr) == (1, "There is no Python 3.14 on the PATH, and none of pyenv's.\n")
    assert not (machine.root / ".venv-3.14").exists()


def test_the_other_pythons_are_those_that_run_and_are_not_the_environments(machine: Machine) -> None:
    machine.has(**{"python3.13": WHOLE, "python3": OLD})
    machine.has_pyenv(**{"3_12_1": HALF, "3_11_7": SHIM, "3_13_0": WHOLE})
    assert machine.run("--others", ".venv").stdout.split() == ["3.13", "3.12"]
    machine.write(machine.venv / "bin" / "python", WHOLE)
    assert machine.run("--others", ".venv").stdout.split() == ["3.12"]
