#!/bin/sh
# The long fuzzing run: COUNT inputs under AddressSanitizer and UndefinedBehaviorSanitizer, shared by as many workers as there
# are cores, then SECONDS of libFuzzer where clang has it (what it finds stays as ./crash-*). The last line says inputs, seconds
# and findings; any finding makes the exit status 1. Usage: scripts/fuzz.sh [COUNT [SECONDS]]; 20 million inputs take about 6
# minutes of two cores.
set -eu
COUNT=${1:-20000000}
SECONDS_OF_LIBFUZZER=${2:-60}
PYTHON=${PYTHON:-.venv/bin/python}
WORKERS=${WORKERS:-$(nproc)}
cd "$(dirname "$0")/.."
WORK=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; rm -rf "$WORK"' EXIT
"$PYTHON" -m tests.firmware.fuzz.seeds "$WORK/seeds" >/dev/null

sources=$("$PYTHON" -c 'from fedtiny.emulation import core_sources; print(*core_sources())')
flags="-std=c99 -O2 -g -ffp-contract=off -fno-sanitize-recover=all -Ifirmware/include"
export ASAN_OPTIONS=quarantine_size_mb=8
started=$(date +%s)
findings=0 done=0 more=0

# shellcheck disable=SC2086 -- lists of words
gcc $flags -fsanitize=address,undefined -o "$WORK/driver" $sources tests/firmware/fuzz/*.c -lm
share=$(((COUNT + WORKERS - 1) / WORKERS))
echo "$WORKERS workers, $share inputs each"
for worker in $(seq "$WORKERS"); do
    FUZZ_LAST="$WORK/last.$worker" "$WORK/driver" $share $((${SEED:-0} + worker)) "$WORK"/seeds/*.bin >"$WORK/out.$worker" 2>&1 &
    pids="$pids $!"
done
running=$WORKERS
while [ "$running" -gt 0 ]; do
    sleep 1
    running=0
    for pid in $pids; do
        if kill -0 "$pid" 2>/dev/null; then running=$((running + 1)); fi
    done
    done=$(cat "$WORK"/last.* 2>/dev/null | awk '{ n += $1 } END { print n + 0 }')
    seconds=$(($(date +%s) - started))
    [ $((seconds % 10)) -ne 0 ] || echo "$done of $COUNT inputs, $seconds s"
done
worker=0 done=0
for pid in $pids; do
    worker=$((worker + 1))
    if wait "$pid"; then
        done=$((done + share))
    else
        findings=$((findings + 1))
        done=$((done + $(cat "$WORK/last.$worker")))
        cat "$WORK/out.$worker" >&2
        echo "One of the 1000 inputs from number $(cat "$WORK/last.$worker") of seed $((${SEED:-0} + worker)) on: see 'replay' in" \
            "tests/firmware/fuzz/driver.c" >&2
    fi
done
pids=

# shellcheck disable=SC2086
if clang $flags -fsanitize=fuzzer,address,undefined -o "$WORK/libfuzzer" $sources \
    tests/firmware/fuzz/target.c tests/firmware/fuzz/repair.c -lm 2>/dev/null; then
    echo "libFuzzer: $SECONDS_OF_LIBFUZZER seconds"
    "$WORK/libfuzzer" -max_total_time="$SECONDS_OF_LIBFUZZER" -max_len=4096 -print_final_stats=1 -verbosity=0 \
        "$WORK/seeds" >"$WORK/out" 2>&1 || {
        findings=$((findings + 1))
        cat "$WORK/out" >&2
    }
    more=$(awk '/number_of_executed_units/ { print $2 }' "$WORK/out")
else
    echo "libFuzzer is missing: apt-get install clang libclang-rt-14-dev" >&2
fi
echo "$done inputs and ${more:-0} of libFuzzer in $(($(date +%s) - started)) s: $findings findings"
[ "$findings" -eq 0 ]
