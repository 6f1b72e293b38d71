# Sourced by the other scripts: where things are built, and how a stage is shown.
#
#   $PROOFMILL_CACHE (default $XDG_CACHE_HOME/proofmill or ~/.cache/proofmill; "off" means ./target)
#     lock                              held by one make run at a time
#     rocksdb-<version>-gcc<major>/     librocksdb.a, built once per version and compiler
#     target/                           cargo's target directory, unless CARGO_TARGET_DIR is set
# shellcheck shell=bash

checkout=$PWD
self="make ${1-}"

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$self" "$*" >&2
    exit 1
}

# make's own job server is closed to recipes; cargo would warn about it and then ignore it.
unset MAKEFLAGS MFLAGS MAKELEVEL

# The flags are settled in .cargo/config.toml; a different value would compile every dependency again.
for name in RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS; do
    if [ -n "${!name+set}" ]; then
        say "warning: $name is set in the environment and is ignored here; see .cargo/config.toml" >&2
        unset "$name"
    fi
done

cache=${PROOFMILL_CACHE:-}
unset PROOFMILL_CACHE
if [ -z "$cache" ] && [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/proofmill
fi
case $cache in
"" | off)
    cache=$checkout/target
    target=$cache
    ;;
*)
    case $cache in /*) ;; *) cache=$checkout/$cache ;; esac
    target=$cache/target
    ;;
esac
case ${CARGO_TARGET_DIR:-} in
"") ;;
/*) target=$CARGO_TARGET_DIR ;;
*) target=$checkout/$CARGO_TARGET_DIR ;;
esac
export CARGO_TARGET_DIR=$target

rocksdb_version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = ".*+\(.*\)"$/\1/p}' Cargo.lock)
[ -n "$rocksdb_version" ] || fail "Cargo.lock names no version of librocksdb-sys"

# rocksdb_lib_dir: where the static library of this version and compiler is kept. Needs the compiler.
rocksdb_lib_dir() {
    local major
    major=$(${CXX:-c++} -dumpversion) || fail "no C++ compiler: ${CXX:-c++}"
    say "$cache/rocksdb-$rocksdb_version-gcc${major%%.*}"
}

# minutes SECONDS: 3m12s
minutes() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

# about CPU_MINUTES: the estimate for this machine, from what the work took on two cores.
about() {
    local cores
    cores=$(nproc)
    say $((($1 + cores - 1) / cores))
}

# stage TITLE ESTIMATE COMMAND...: runs the command with its place in the plan, and says how long it took.
# While it runs, one line a minute goes to stderr when nobody watches; with a terminal cargo draws its own bar.
# Expects $plan (number of stages); counts in $stage_number. ESTIMATE is in minutes, or empty.
stage_number=0
stage_title=
ticker=
stage() {
    stage_number=$((stage_number + 1))
    stage_title=$1
    local label="[$stage_number/$plan] $1" of=${2:+" of about ${2}m"} started=$SECONDS
    shift 2
    say "$label …${of:+ takes${of# of}}"
    if [ ! -t 2 ]; then
        tick 60 '%s … %s%s\n' "$label" "$of"
    elif [ -n "${quiet_stage:-}" ]; then
        tick 1 '\r%s … %s%s ' "$label" "$of"
    fi
    local status=0
    "$@" 9>&- || status=$?
    stop_ticker
    [ $status -eq 0 ] || return $status
    say "$label: done in $(minutes $((SECONDS - started)))"
}

# pass_over TITLE: a stage with nothing to do.
pass_over() {
    stage_number=$((stage_number + 1))
    stage_title=$1
    say "[$stage_number/$plan] $1"
}

# tick SECONDS FORMAT LABEL ESTIMATE: prints LABEL, elapsed time and ESTIMATE again and again in the background.
tick() {
    (
        begun=$SECONDS
        trap 'kill "$nap" 2>/dev/null; exit 0' TERM
        while :; do
            sleep "$1" &
            nap=$!
            wait "$nap"
            # shellcheck disable=SC2059
            printf "$2" "$3" "$(minutes $((SECONDS - begun)))" "$4" >&2
        done
    ) 9>&- </dev/null &
    ticker=$!
}

stop_ticker() {
    [ -n "$ticker" ] || return 0
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    ticker=
    [ ! -t 2 ] || [ -z "${quiet_stage:-}" ] || printf '\r\033[K' >&2
}
