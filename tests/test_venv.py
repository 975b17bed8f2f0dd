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
# The version checks (-c) go well; `-m venv` makes the directory and fails at ensurepip, as Debian's does.
HALF = """
case "$1 $2" in
    *venv) mkdir -p "$3/bin"; echo 'ensurepip is not available'; exit 1 ;;
    "-c "*print*) echo python3.12 ;;
    --version*) echo "Python 3.12.0" ;;
esac"""
# The environment is made, and the pip in it fails.
WHOLE = """
case "$1 $2" in
    *venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip") case $* in *--version|*" pip") echo "$*" >>log ;; *) exit 1 ;; esac ;;
    "-c "*print*) echo uvicorn ;;
    --version*) echo "Python 3.13.0" ;;
esac"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine whose Pythons are what the test says; all others are hidden by shims."""

    root: Path

    def run(self, **pythons: str) -> "subprocess.CompletedProcess[str]":
        bin = self.root / "bin"
        bin.mkdir()
        for name in NAMES:
            python = bin / name
            python.write_text(f"#!/bin/sh\n{pythons.get(name, SHIM)}\n")
            python.chmod(python.stat().st_mode | stat.S_IXUSR)
        return subprocess.run(
            ["/bin/sh", str(VENV_SH), ".venv"],
            cwd=self.root,
            env={"PATH": f"{bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path / "a path with spaces"
    root.mkdir()
    return Machine(root)


@pytest.mark.parametrize("pythons", [{}, {"python3": OLD}], ids=["only shims", "only an old one"])
def test_without_a_python_that_runs_there_is_one_clear_line(machine: Machine, pythons: dict[str, str]) -> None:
    run = machine.run(**pythons)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "Sidestream needs Python 3.11, 3.12, 3.13 or 3.14, and none of them is on the PATH.\n"
    assert not machine.venv.exists()


def test_a_half_made_environment_is_removed_and_the_apt_line_printed(machine: Machine) -> None:
    run = machine.run(python3=HALF)
    assert run.returncode == 1
    assert "apt install python3.12-venv" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not machine.venv.exists()


def test_a_half_made_environment_that_was_left_behind_is_made_anew(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    run = machine.run(python3=HALF)
    assert "apt install python3.12-venv" in run.stderr
    assert not machine.venv.exists()


def test_the_newest_python_that_runs_is_taken(machine: Machine) -> None:
    run = machine.run(**{"python3.13": WHOLE, "python3.12": HALF, "python3": HALF})
    assert run.stdout.startswith("making .venv with Python 3.13.0\n")


def test_packages_that_cant_be_installed_are_one_clear_line(machine: Machine) -> None:
    run = machine.run(**{"python3.13": WHOLE})
    assert run.returncode == 1
    reason = "is there a network, and a wheel of each for Python 3.13.0?"
    assert run.stderr == f"Not all packages could be installed: {reason}\n"


def test_a_pip_that_an_interrupted_run_left_old_is_renewed(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    python = machine.venv / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{WHOLE}\n")
    python.chmod(0o755)
    run = machine.run()
    assert run.stdout == "installing…\n"
    assert (machine.root / "log").read_text().endswith(" -c constraints.txt pip\n")
