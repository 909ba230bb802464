#!/bin/sh
# The long fuzzing run: COUNT inputs through the plain driver, then SECONDS of libFuzzer where clang has it; ends at the first
# finding. Usage: scripts/fuzz.sh [COUNT [SECONDS]]; 20 million inputs take about 20 minutes of one core.
set -eu
COUNT=${1:-20000000}
SECONDS_OF_LIBFUZZER=${2:-60}
PYTHON=${PYTHON:-.venv/bin/python}
cd "$(dirname "$0")/.."
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
"$PYTHON" -m tests.firmware.fuzz.seeds "$WORK/seeds" >/dev/null

sources=$("$PYTHON" -c 'from fedtiny.emulation import core_sources; print(*core_sources())')
flags="-std=c99 -O2 -g -ffp-contract=off -fno-sanitize-recover=all -Ifirmware/include"
export ASAN_OPTIONS=quarantine_size_mb=8

echo "driver: $COUNT inputs with AddressSanitizer and UndefinedBehaviorSanitizer"
# shellcheck disable=SC2086 -- lists of words
gcc $flags -fsanitize=address,undefined -o "$WORK/driver" $sources tests/firmware/fuzz/*.c -lm
FUZZ_LAST="$WORK/last" "$WORK/driver" "$COUNT" "${SEED:-0}" "$WORK"/seeds/*.bin || {
    echo "A finding. It is one of the 1000 inputs from number $(cat "$WORK/last") on: see 'replay' in tests/firmware/fuzz/driver.c" >&2
    exit 1
}

# shellcheck disable=SC2086
if clang $flags -fsanitize=fuzzer,address,undefined -o "$WORK/libfuzzer" $sources \
    tests/firmware/fuzz/target.c tests/firmware/fuzz/repair.c -lm 2>/dev/null; then
    echo "libFuzzer: $SECONDS_OF_LIBFUZZER seconds"
    "$WORK/libfuzzer" -max_total_time="$SECONDS_OF_LIBFUZZER" -max_len=4096 -print_final_stats=1 -verbosity=0 "$WORK/seeds"
else
    echo "libFuzzer is missing: apt-get install clang libclang-rt-14-dev" >&2
fi
