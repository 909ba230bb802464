#!/bin/sh
# Compilers and emulators for the boards in boards/, a second compiler for this computer, a broker and a client library for it:
# what tests want beside Python. root gets what is missing by apt-get (about 1.5 GB); anyone else is told the command, and the
# tests that need them are skipped. Nothing else needs these: not make run, not an installed fedtiny.
set -eu
cd "$(dirname "$0")/.."
wanted=$(sed -n 's/^packages = \[\(.*\)\].*/\1/p' boards/qemu-*.toml | tr -d '" ' | tr ',' '\n' | sort -u)
wanted="$wanted clang mosquitto libmosquitto-dev cppcheck"
# clang's sanitizers and libFuzzer, for scripts/fuzz.sh: named after the version that clang is here (43 MB)
version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/\1/p' | head -n 1)
wanted="$wanted${version:+ libclang-rt-$version-dev}"

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "tools: tests on emulated boards need these packages of Debian, or your system's like them:" $wanted >&2
    exit 0
fi
missing=""
for package in $wanted; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
    echo "tools: tests on emulated boards will be skipped. To run them: sudo $command" >&2
    exit 0
fi
echo "tools: installing$missing (about a minute, once)"
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 -qq update &&
    apt-get -o DPkg::Lock::Timeout=300 -y -qq install --no-install-recommends $missing >/dev/null ||
    echo "tools: that failed; tests on emulated boards will be skipped. To try again: $command" >&2
