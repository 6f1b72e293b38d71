#!/bin/sh
# Builds the .wasm of every example from its C source, byte for byte the same with the same compiler.
#
#   ./build.sh           rebuilds the files in place
#   ./build.sh --check   rebuilds elsewhere and fails if a committed file differs
set -eu
cd "$(dirname "$0")"

case "${1-}" in
"") check=false ;;
--check) check=true ;;
*)
    echo "usage: ./build.sh [--check]" >&2
    exit 2
    ;;
esac

for tool in clang-19 wasm-ld-19; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing; install it with: apt-get install --no-install-recommends clang-19 lld-19" >&2
        exit 1
    fi
done

# -mcpu=mvp, and then only what a program may use and these do: SIMD and sign extension. No libraries; names
# and compiler notes are stripped, so nothing of the building machine gets in.
flags="--target=wasm32 -std=c11 -mcpu=mvp -msimd128 -msign-ext -O3 -ffreestanding -fno-builtin -nostdlib
    -Wall -Wextra -Werror -Wconversion -Wno-sign-conversion -ffile-prefix-map=$PWD=."
link="-Wl,--no-entry -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=16384 -Wl,--fatal-warnings"

# build NAME PAGES OUTPUT: memory starts at its maximum of PAGES x 64 KiB and never grows.
build() {
    bytes=$(($2 * 65536))
    # shellcheck disable=SC2086
    clang-19 $flags $link -Wl,--initial-memory=$bytes -Wl,--max-memory=$bytes -o "$3" "$1/main.c"
    chmod 644 "$3"
}

if $check; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
status=0
for source in */main.c; do
    example=${source%/main.c}
    pages=$(sed -n 's/^ *"memory_pages": \([0-9]*\),$/\1/p' "$example/task.json")
    if $check; then
        build "$example" "$pages" "$out/$example.wasm"
        if cmp "$out/$example.wasm" "$example/$example.wasm"; then
            echo "$example.wasm: same bytes"
        else
            status=1
        fi
    else
        build "$example" "$pages" "$example/$example.wasm"
        echo "$example.wasm: $(wc -c <"$example/$example.wasm") bytes"
    fi
done
exit $status
