#!/bin/sh
# A virtual environment with what the service needs:  venv.sh DIRECTORY [--group NAME]
# The newest Python of 3.11 or later that really runs; wheels only, at the versions in constraints.txt.
set -eu

venv=$1
shift

# A name on the PATH may be a shim for a version that isn't there: what counts is whether it runs.
runs() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

newest_python() {
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if runs "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo 'Sidestream needs Python 3.11, 3.12, 3.13 or 3.14, and none of them is on the PATH.' >&2
    exit 1
}

if ! runs "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    python=$(newest_python)
    echo "making $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1 || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$venv" # Debian without python3-venv leaves half of one
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        echo "$python can't make a virtual environment. On Debian and Ubuntu this mends it: apt install $version-venv" >&2
        exit 1
    fi
fi

install() {
    if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: -c constraints.txt "$@"; then
        echo "Not all packages could be installed: is there a network, and a wheel of each for $("$venv/bin/python" --version)?" >&2
        exit 1
    fi
}

echo "installing${1:+ for $2}…"
install pip # before 25.1 it knows no --group; does nothing where it is the pinned one already
if [ $# -eq 0 ]; then
    set -- $("$venv/bin/python" -c '
import tomllib
for requirement in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    print(requirement.partition(";")[0].strip())')
fi
install "$@"
