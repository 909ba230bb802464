#!/bin/sh
# The long fuzzing run, under AddressSanitizer and UndefinedBehaviorSanitizer: for each target COUNT inputs, shared by as many
# workers as there are cores, then SECONDS of libFuzzer where clang has it (what it finds stays as ./<target>-crash-*).
# Usage: scripts/fuzz.sh core|wire|TARGET... [COUNT [SECONDS]]
#   core: blobs, masks and calls of the core; 20 million inputs take about 6 minutes of two cores.
#   wire: every decoder of the node's end by itself, then the whole node with a hundredth of COUNT; a TARGET is one of these
#   (tests/link/fuzz/target.c). A line for each target says inputs and seconds; any finding makes the exit status 1.
set -eu
chosen=
while [ $# -gt 0 ] && [ "${1#[0-9]}" = "$1" ]; do
    chosen="$chosen $1"
    shift
done
COUNT=${1:-20000000}
SECONDS_OF_LIBFUZZER=${2:-60}
PYTHON=${PYTHON:-.venv/bin/python}
WORKERS=${WORKERS:-$(nproc)}
SEED=${SEED:-0}
cd "$(dirname "$0")/.."
WORK=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; rm -rf "$WORK"' EXIT
export ASAN_OPTIONS=quarantine_size_mb=8:handle_abort=1 FUZZ_MODEL="$WORK/seeds/model.ftm"
CC_FLAGS="-std=c99 -O2 -g -ffp-contract=off -fno-sanitize-recover=all -Ifirmware/include"

case $chosen in
'')
    sed -n '2,8s/^# \{0,1\}//p' scripts/fuzz.sh >&2
    exit 2
    ;;
' core')
    whole=
    "$PYTHON" -m tests.firmware.fuzz.seeds "$WORK/seeds/core" >/dev/null
    sources=$("$PYTHON" -c 'from fedtiny.emulation import core_sources; print(*core_sources())')
    own=tests/firmware/fuzz
    ;;
*)
    "$PYTHON" -m tests.link.fuzz.seeds "$WORK/seeds"
    whole=$("$PYTHON" -c 'from tests.link.fuzz.seeds import WHOLE; print(*WHOLE)')
    [ "$chosen" != ' wire' ] || chosen=$("$PYTHON" -c 'from tests.link.fuzz.seeds import DECODERS; print(*DECODERS)')" $whole"
    sources=$("$PYTHON" -c 'from tests.link.fuzz.sources import sources; print(*sources())')
    CC_FLAGS="$CC_FLAGS $("$PYTHON" -c 'from fedtiny.emulation import wire_flags; print(*wire_flags())')"
    own=tests/link/fuzz
    ;;
esac

# compile COMPILER SANITIZERS OUT SOURCE...: as many files at once as there are workers
compile() {
    compiler=$1 sanitizers=$2 out=$3
    shift 3
    mkdir "$out.o"
    number=0
    for source in "$@"; do
        number=$((number + 1))
        echo "$source $out.o/$number.o"
    done | xargs -P "$WORKERS" -L 1 sh -c "$compiler $CC_FLAGS -fsanitize=$sanitizers -c \$0 -o \$1"
    "$compiler" "-fsanitize=$sanitizers" -o "$out" "$out.o"/*.o -lm
}

# What workers have done so far.
so_far() { cat "$WORK"/last.* 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'; }

# drive TARGET COUNT: adds to inputs and findings
drive() {
    share=$((($2 + WORKERS - 1) / WORKERS)) began=$(date +%s) pids='' worker=0 done=0
    rm -f "$WORK"/last.*
    for worker in $(seq "$WORKERS"); do
        FUZZ_TARGET=$1 FUZZ_LAST="$WORK/last.$worker" \
            "$WORK/driver" $share $((SEED + worker)) "$WORK/seeds/$1"/*.bin >"$WORK/out.$worker" 2>&1 &
        pids="$pids $!"
    done
    while sleep 1 && [ -n "$(for pid in $pids; do ! kill -0 "$pid" 2>/dev/null || echo "$pid"; done)" ]; do
        [ $((($(date +%s) - began) % 10)) -ne 0 ] || echo "$1: $(so_far) of $2 inputs"
    done
    worker=0
    for pid in $pids; do
        worker=$((worker + 1))
        if wait "$pid"; then
            done=$((done + share))
        else
            findings=$((findings + 1))
            last=$(cat "$WORK/last.$worker")
            done=$((done + last))
            cat "$WORK/out.$worker" >&2
            echo "$1: one of the 1000 inputs from number $last of seed $((SEED + worker)) on: see $own/driver.c" >&2
        fi
    done
    pids=
    inputs=$((inputs + done))
    echo "$1: $done inputs in $(($(date +%s) - began)) s"
}

# learn TARGET...: libFuzzer, as many targets at once as there are workers; adds to more and findings
learn() {
    while [ $# -gt 0 ]; do
        pids='' batch=''
        while [ $# -gt 0 ] && [ "$(echo "$batch" | wc -w)" -lt "$WORKERS" ]; do
            FUZZ_TARGET=$1 "$WORK/libfuzzer" -max_total_time="$SECONDS_OF_LIBFUZZER" -max_len=4096 -print_final_stats=1 \
                -verbosity=0 -artifact_prefix="./$1-" "$WORK/seeds/$1" >"$WORK/learnt.$1" 2>&1 &
            pids="$pids $!" batch="$batch $1"
            shift
        done
        for pid in $pids; do
            target=${batch# } && target=${target%% *} && batch=${batch#" $target"}
            wait "$pid" || {
                findings=$((findings + 1))
                cat "$WORK/learnt.$target" >&2
            }
            units=$(awk '/number_of_executed_units/ { print $2 }' "$WORK/learnt.$target")
            more=$((more + ${units:-0}))
            echo "$target: ${units:-0} inputs of libFuzzer in $SECONDS_OF_LIBFUZZER s"
        done
        pids=
    done
}

started=$(date +%s) findings=0 inputs=0 more=0
# shellcheck disable=SC2086 -- lists of words
compile gcc address,undefined "$WORK/driver" $sources "$own"/*.c
echo "$WORKERS workers"
for target in $chosen; do
    case " $whole " in
    *" $target "*) drive "$target" $(((COUNT + 99) / 100)) ;;
    *) drive "$target" "$COUNT" ;;
    esac
done
others=$(for file in "$own"/*.c; do case $file in */driver.c) ;; *) echo "$file" ;; esac done)
# shellcheck disable=SC2086
if [ "$SECONDS_OF_LIBFUZZER" -eq 0 ]; then
    : # none wanted
elif compile clang fuzzer,address,undefined "$WORK/libfuzzer" $sources $others 2>"$WORK/why"; then
    learn $chosen
else
    cat "$WORK/why" >&2
    echo "libFuzzer is missing: make tools, or apt-get install clang and the libclang-rt-*-dev of its version" >&2
fi
echo "$inputs inputs and $more of libFuzzer in $(($(date +%s) - started)) s: $findings findings"
[ "$findings" -eq 0 ]
