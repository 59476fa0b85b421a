#!/usr/bin/env bash
# Builds the guests into prebuilt/ and keeps prebuilt/manifest.json.
set -euo pipefail
# Without it a guest that cannot be built would go unnoticed inside of $(...).
shopt -s inherit_errexit nullglob
export LC_ALL=C

usage() {
    cat <<'USAGE'
build.sh                   build every guest into prebuilt/ and write the manifest
build.sh NAME...           build some
build.sh --check [NAME...] build into a temporary folder and compare with the
                           manifest, where the compiler is the recorded one
build.sh --check-manifest  compare prebuilt/ and the sources with the manifest;
                           needs no compiler
build.sh --list            name the guests

Needs: rustup target add wasm32-unknown-unknown wasm32-wasip1; clang and lld for
the guest in C. JOBS=n limits the parallel jobs of cargo.
USAGE
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prebuilt=$root/prebuilt
manifest=$prebuilt/manifest.json
export CARGO_TARGET_DIR=$root/target/guests

# name:target:form. A `task` is a cdylib with the SDK, a `command` a WASI
# program, `c` is one file for clang.
guests=(
    c_histogram:wasm32:c
    compress:wasm32-unknown-unknown:task
    csv_stats:wasm32-wasip1:command
    echo:wasm32-unknown-unknown:task
    encrypt:wasm32-unknown-unknown:task
    faults:wasm32-wasip1:task
    init_table:wasm32-unknown-unknown:task
    kernels:wasm32-unknown-unknown:task
    lookup:wasm32-unknown-unknown:task
    mandelbrot:wasm32-unknown-unknown:task
    monte_carlo:wasm32-unknown-unknown:task
    primes:wasm32-unknown-unknown:task
    tokenize:wasm32-unknown-unknown:task
    traced:wasm32-unknown-unknown:task
    word_count:wasm32-unknown-unknown:task
)

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

guest_of() {
    local guest
    for guest in "${guests[@]}"; do
        if [[ ${guest%%:*} == "$1" ]]; then printf '%s\n' "$guest"; return; fi
    done
    die "no guest is called '$1'; --list names them"
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

# ── What a guest is made from ────────────────────────────────────────────────

sources() { # NAME FORM -> paths, relative to the root
    local folders=("$1")
    if [[ $2 == task ]]; then folders+=(sdk sdk-macros); fi
    if [[ $2 != c ]]; then printf '%s\n' Cargo.toml Cargo.lock; fi
    find "${folders[@]}" -type f \
        \( -name '*.rs' -o -name '*.c' -o -name Cargo.toml \) -not -path '*/tests/*'
}

source_digest() { # NAME FORM
    (cd "$root" && sources "$@" | sort | tr '\n' '\0' | xargs -0 sha256sum) |
        sha256sum | cut -d' ' -f1
}

# ── Compilers ────────────────────────────────────────────────────────────────

sysroot_of() { "$1" --print sysroot 2>/dev/null; }

# Sets mode (target: the standard library is installed; source: it is built),
# rustc, cargo, and for `source` also linker.
find_rust() { # TARGET
    local target=$1 candidate sysroot
    mode='' rustc='' cargo='' linker=''
    if sysroot=$(sysroot_of rustc) && [[ -d $sysroot/lib/rustlib/$target/lib ]]; then
        mode=target rustc=rustc cargo=cargo
        return
    fi
    for candidate in /usr/bin/rustc rustc; do
        sysroot=$(sysroot_of "$candidate") || continue
        [[ -f $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]] || continue
        rustc=$candidate cargo=${candidate%rustc}cargo
        command -v "$cargo" >/dev/null || continue
        [[ $target != *wasi* || -f /usr/lib/wasm32-wasi/crt1-command.o ]] || continue
        linker=$(find_lld) || continue
        mode=source
        return
    done
    die "no way to compile for $target. Either: rustup target add $target
Or, on Debian: apt-get install rustc-web cargo-web rust-web-src wasi-libc lld"
}

# The standard library's objects want a linker as new as their compiler: the one
# that comes with a toolchain of rustup is better than the distribution's.
find_lld() {
    local sysroot lld
    for sysroot in "$(sysroot_of rustc)" "$(rustup run stable rustc --print sysroot 2>/dev/null)"; do
        for lld in "$sysroot"/lib/rustlib/*/bin/rust-lld; do
            printf '%s\n' "$lld"
            return
        done
    done
    command -v rust-lld || command -v wasm-ld
}

lld_version() {
    case $1 in
        *rust-lld) "$1" -flavor wasm --version ;;
        *) "$1" --version ;;
    esac | sed 's/ (.*//'
}

compiler_of() { # TARGET FORM, after find_rust
    if [[ $2 == c ]]; then
        printf '%s, %s\n' "$(clang --version | head -n 1)" "$(lld_version wasm-ld)"
        return
    fi
    local text
    text=$($rustc --version | sed 's/ (built from a source tarball)//')
    if [[ $mode == source ]]; then
        text+=" with its standard library built from source, $(lld_version "$linker")"
        if [[ $1 == *wasi* ]]; then
            text+=", wasi-libc $(dpkg-query -W -f '${Version}' wasi-libc 2>/dev/null || echo unknown)"
        fi
    fi
    printf '%s\n' "$text"
}

# ── Building ─────────────────────────────────────────────────────────────────

build_rust() { # NAME TARGET FORM OUT
    local name=$1 target=$2 form=$3 out=$4 flags=() arguments=() last=() sysroot home folder
    sysroot=$(sysroot_of "$rustc")
    home=${CARGO_HOME:-$HOME/.cargo}
    (cd "$root" && "$cargo" fetch --quiet --locked)

    # No path of this machine gets into a module. The last match wins.
    flags+=("--remap-path-prefix=$home=/cargo")
    for folder in "$home"/registry/src/*/; do
        flags+=("--remap-path-prefix=${folder%/}=/crates")
    done
    flags+=("--remap-path-prefix=$root=/guest-tasks")
    flags+=("--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust")

    arguments+=(rustc --locked --release --target "$target" -p "$name")
    if [[ $form == task ]]; then arguments+=(--lib); else arguments+=(--bin "$name"); fi
    if [[ -n ${JOBS:-} ]]; then arguments+=(-j "$JOBS"); fi
    local environment=("RUSTC=$rustc")
    if [[ $mode == source ]]; then
        arguments+=(-Zbuild-std=std,panic_abort)
        local variable=${target//-/_}
        environment+=(RUSTC_BOOTSTRAP=1 "CARGO_TARGET_${variable^^}_LINKER=$linker")
        if [[ $target == *wasi* ]]; then
            flags+=(-Clink-self-contained=no -L/usr/lib/wasm32-wasi)
        fi
        if [[ $form == command ]]; then
            last+=(-- -Clink-arg=/usr/lib/wasm32-wasi/crt1-command.o)
        fi
    else
        # Only `faults` uses anything unstable.
        environment+=(RUSTC_BOOTSTRAP=faults)
    fi
    local joined
    joined=$(printf '\x1f%s' "${flags[@]}")
    (
        unset RUSTFLAGS
        cd "$root"
        env "${environment[@]}" "CARGO_ENCODED_RUSTFLAGS=${joined:1}" \
            "$cargo" "${arguments[@]}" ${last[@]+"${last[@]}"}
    ) >&2
    cp "$CARGO_TARGET_DIR/$target/release/$name.wasm" "$out"

    local path
    for path in "$root" "$home" "$sysroot/lib/rustlib/src" "$HOME/"; do
        if grep -aqF -- "$path" "$out"; then die "$name.wasm contains the path $path"; fi
    done
}

build_c() { # NAME OUT
    command -v clang >/dev/null || die "$1 is in C: install clang"
    command -v wasm-ld >/dev/null || die "$1 is in C: install lld (for wasm-ld)"
    (cd "$root/$1" && clang --target=wasm32 -std=c11 -O2 -Wall -Wextra -Werror \
        -ffreestanding -nostdlib -Wl,--no-entry -Wl,--strip-debug \
        -o "$2" "$1.c")
}

build() { # NAME TARGET FORM OUT; prints the compiler
    local name=$1 target=$2 form=$3 out=$4
    say "== $name ($target)"
    if [[ $form == c ]]; then
        build_c "$name" "$out"
    else
        find_rust "$target"
        build_rust "$name" "$target" "$form" "$out"
    fi
    compiler_of "$target" "$form"
}

# ── The manifest: a JSON array, one guest a line ─────────────────────────────

recorded() { # NAME -> its line, or nothing
    if [[ -f $manifest ]]; then grep -F "\"file\": \"$1.wasm\"" "$manifest" || true; fi
}

field() { # LINE KEY
    sed -E "s/.*\"$2\": \"?([^\"}]*[^\"},])\"?[,}].*/\1/" <<<"$1"
}

entry() { # NAME FORM COMPILER -> a line
    local file=$prebuilt/$1.wasm
    printf '  {"file": "%s.wasm", "source_sha256": "%s", "compiler": "%s", "size": %d, "sha256": "%s"}' \
        "$1" "$(source_digest "$1" "$2")" "$3" "$(wc -c <"$file")" "$(digest "$file")"
}

write_manifest() { # lines
    local line first=yes
    {
        printf '[\n'
        for line in "$@"; do
            if [[ $first == no ]]; then printf ',\n'; fi
            printf '%s' "$line"
            first=no
        done
        printf '\n]\n'
    } >"$manifest.new"
    mv "$manifest.new" "$manifest"
}

build_all() { # NAMES
    local name guest target form compiler line lines=() scratch
    declare -A fresh=()
    mkdir -p "$prebuilt"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' RETURN
    for name in "$@"; do
        guest=$(guest_of "$name")
        IFS=: read -r _ target form <<<"$guest"
        compiler=$(build "$name" "$target" "$form" "$scratch/$name.wasm")
        install -m 644 "$scratch/$name.wasm" "$prebuilt/$name.wasm"
        fresh[$name]=$(entry "$name" "$form" "$compiler")
        say "   $(wc -c <"$prebuilt/$name.wasm") bytes"
    done
    for guest in "${guests[@]}"; do
        name=${guest%%:*}
        line=${fresh[$name]:-$(recorded "$name" | sed 's/,$//')}
        if [[ -n $line ]]; then lines+=("$line"); fi
    done
    write_manifest "${lines[@]}"
}

check() { # NAMES
    local name guest target form compiler line scratch differing=0 skipped=0
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$scratch'" EXIT
    for name in "$@"; do
        guest=$(guest_of "$name")
        IFS=: read -r _ target form <<<"$guest"
        compiler=$(build "$name" "$target" "$form" "$scratch/$name.wasm")
        line=$(recorded "$name")
        if [[ -z $line ]]; then
            say "   DIFFERS: not in the manifest"
            differing=$((differing + 1))
        elif [[ $(field "$line" compiler) != "$compiler" ]]; then
            say "   built, NOT COMPARED: recorded with $(field "$line" compiler), here $compiler"
            skipped=$((skipped + 1))
        elif [[ $(field "$line" sha256) != $(digest "$scratch/$name.wasm") ]]; then
            say "   DIFFERS from the manifest"
            differing=$((differing + 1))
        else
            say "   the same"
        fi
    done
    say "$# built, $skipped not compared (another compiler), $differing differing"
    [[ $differing == 0 ]]
}

check_manifest() {
    local guest name form line file wrong=0
    complain() { say "$1.wasm: $2"; wrong=$((wrong + 1)); }
    [[ -f $manifest ]] || die "there is no prebuilt/manifest.json"
    for guest in "${guests[@]}"; do
        IFS=: read -r name _ form <<<"$guest"
        line=$(recorded "$name")
        file=$prebuilt/$name.wasm
        if [[ -z $line ]]; then complain "$name" "not in the manifest"; continue; fi
        if [[ ! -f $file ]]; then complain "$name" "not in prebuilt/"; continue; fi
        [[ $(field "$line" sha256) == $(digest "$file") ]] ||
            complain "$name" "is not the recorded file"
        [[ $(field "$line" size) == $(wc -c <"$file" | tr -d ' ') ]] ||
            complain "$name" "has not the recorded size"
        [[ $(field "$line" source_sha256) == $(source_digest "$name" "$form") ]] ||
            complain "$name" "its sources have changed since it was built: run build.sh $name"
    done
    for file in "$prebuilt"/*.wasm; do
        name=$(basename "$file" .wasm)
        [[ " ${guests[*]}" == *" $name:"* ]] || complain "$name" "is no guest of build.sh"
    done
    [[ $wrong == 0 ]] && say "${#guests[@]} guests agree with the manifest"
}

all_names() { local guest; for guest in "${guests[@]}"; do printf '%s\n' "${guest%%:*}"; done; }

case ${1:-} in
    -h | --help) usage ;;
    --list) all_names ;;
    --check-manifest) check_manifest ;;
    --check)
        shift
        if [[ $# == 0 ]]; then mapfile -t names < <(all_names); set -- "${names[@]}"; fi
        check "$@"
        ;;
    -*) usage >&2; exit 2 ;;
    *)
        if [[ $# == 0 ]]; then mapfile -t names < <(all_names); set -- "${names[@]}"; fi
        build_all "$@"
        ;;
esac
