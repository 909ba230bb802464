#!/bin/sh
# Makes the virtual environment and installs fedtiny into it. Only what is missing is installed: as root by apt-get, for
# anyone else the command to type is printed and nothing is changed.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

missing=""
need() { missing="$missing $1"; }
command -v "$PYTHON" >/dev/null 2>&1 || need python3
# A C compiler without its library's headers is found by compiling, not by asking for its name.
printf '#include <stdint.h>\n#include <string.h>\nint main(void) { return 0; }\n' |
    ${CC:-cc} -x c -o /dev/null - 2>/dev/null || need "gcc libc6-dev"
# Debian splits venv's pip out of python3; the module imports without it and fails later.
if command -v "$PYTHON" >/dev/null 2>&1; then
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || need python3-venv
else
    need python3-venv
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "set-up: installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -o DPkg::Lock::Timeout=300 -qq update
        # shellcheck disable=SC2086 -- one word per package
        apt-get -o DPkg::Lock::Timeout=300 -y -qq install --no-install-recommends $missing >/dev/null
    else
        echo "set-up: these are missing:$missing" >&2
        echo "Install them, then run make again:" >&2
        echo "    sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
fi

"$PYTHON" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    print(f"set-up: fedtiny needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}.\n"
          "Name a newer one: make PYTHON=python3.12", file=sys.stderr)
    sys.exit(1)
PY

# An environment of another Python, or one whose Python is gone, is made anew.
"$VENV/bin/python" -c 'import pip' 2>/dev/null || "$PYTHON" -m venv --clear "$VENV"
echo "set-up: installing fedtiny and what it needs into $VENV (about a minute, 1.4 GB)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
