#!/bin/sh
# A virtual environment: wheels only, at the versions in constraints.txt.
#
#   venv.sh .venv run           what the service needs, on the newest Python of 3.11 or later on the PATH
#   venv.sh .venv-3.12 test     and a dependency group besides, on this Python: the PATH's, or pyenv's
#   venv.sh --others .venv      say which other Pythons this machine has, a version a line
set -eu

# A name on the PATH may be a shim for a version that isn't installed, so each candidate is run to ask its version.
runs() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

is() {
    "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" 2>/dev/null
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

python_of() {
    for candidate in "python$1" python3 python "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1".*/bin/python; do
        if is "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
    echo "There is no Python $1 on the PATH, and none of pyenv's." >&2
    exit 1
}

if [ "$1" = --others ]; then
    for version in 3.14 3.13 3.12 3.11; do
        if ! is "$2/bin/python" "$version" && (python_of "$version") >/dev/null 2>&1; then
            echo "$version"
        fi
    done
    exit
fi

venv=$1
group=$2

if ! runs "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    case $venv in
        *-[0-9]*) python=$(python_of "${venv##*-}") ;;
        *) python=$(newest_python) ;;
    esac
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

echo "installing into $venv to $group…"
install pip # before 25.1 it knows no --group; does nothing where it is the pinned one already
if [ "$group" = run ]; then
    set --
else
    set -- --group "$group"
fi
install "$@" $("$venv/bin/python" -c '
import tomllib
for requirement in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    print(requirement.partition(";")[0].strip())')
