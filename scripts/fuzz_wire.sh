#!/bin/sh
# The long fuzzing run of the wire's node: COUNT inputs under AddressSanitizer and UndefinedBehaviorSanitizer, shared by as many
# workers as there are cores, then SECONDS of libFuzzer where clang has it, for each kind of input (messages, lines, sessions,
# tasks). Any finding makes the exit status 1. Usage: scripts/fuzz_wire.sh [COUNT [SECONDS]]
set -eu
COUNT=${1:-20000000}
SECONDS_OF_LIBFUZZER=${2:-60}
PYTHON=${PYTHON:-.venv/bin/python}
WORKERS=${WORKERS:-$(nproc)}
cd "$(dirname "$0")/.."
WORK=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; rm -rf "$WORK"' EXIT
"$PYTHON" -m tests.link.fuzz.seeds "$WORK/seeds"
export FUZZ_MODEL="$WORK/seeds/model.ftm" ASAN_OPTIONS=quarantine_size_mb=8

sources=$("$PYTHON" -c 'from fedtiny.emulation import core_sources, wire_sources
print(*core_sources(), *wire_sources(forward_secrecy=True))')
flags="-std=c99 -O2 -g -ffp-contract=off -fno-sanitize-recover=all $("$PYTHON" -c 'from fedtiny.emulation import wire_flags
print(*wire_flags())') -Ifirmware/include"
own="tests/link/fuzz/target.c tests/link/target/codec.c"
started=$(date +%s)
findings=0

# shellcheck disable=SC2086 -- lists of words
gcc $flags -fsanitize=address,undefined -o "$WORK/driver" $sources $own tests/link/fuzz/driver.c -lm
share=$(((COUNT + WORKERS - 1) / WORKERS))
echo "$WORKERS workers, $share inputs each"
for worker in $(seq "$WORKERS"); do
    FUZZ_LAST="$WORK/last.$worker" "$WORK/driver" $share $((${SEED:-0} + worker)) "$WORK"/seeds/*.bin >"$WORK/out.$worker" 2>&1 &
    pids="$pids $!"
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
    fi
done
pids=

more=0
# shellcheck disable=SC2086
if clang $flags -fsanitize=fuzzer,address,undefined -o "$WORK/libfuzzer" $sources $own -lm 2>/dev/null; then
    for kind in 0 1 2 3; do
        mkdir "$WORK/corpus"
        for seed in "$WORK"/seeds/*.bin; do
            [ "$(od -An -N1 -tu1 "$seed" | tr -d ' ')" -ne $kind ] || cp "$seed" "$WORK/corpus/"
        done
        "$WORK/libfuzzer" -max_total_time="$SECONDS_OF_LIBFUZZER" -max_len=4096 -print_final_stats=1 -verbosity=0 \
            "$WORK/corpus" >"$WORK/out" 2>&1 || {
            findings=$((findings + 1))
            cat "$WORK/out" >&2
        }
        more=$((more + $(awk '/number_of_executed_units/ { print $2 }' "$WORK/out")))
        rm -r "$WORK/corpus"
    done
else
    echo "libFuzzer is missing: apt-get install clang libclang-rt-14-dev" >&2
fi
echo "$done inputs and $more of libFuzzer in $(($(date +%s) - started)) s: $findings findings"
[ "$findings" -eq 0 ]
