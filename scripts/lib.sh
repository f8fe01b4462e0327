# Shared by the scripts: where things are, and what a fresh machine needs. Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
target=${CARGO_TARGET_DIR:-$root/target}

say() { printf '\n\033[1m── %s\033[0m\n' "$*"; }

# need COMMAND=PACKAGE…: installs the packages whose command is missing, or prints the one line that does.
need() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    install_packages "${missing[@]}"
}

need_rust() {
    command -v cargo >/dev/null && return
    echo "Rust is missing: install a current stable toolchain with rustup, then run this again." >&2
    exit 2
}

# The virtual environment with the pinned requirements, made again when they change.
need_django() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    local stamp=$build/venv/requirements.txt wanted=$root/tests/django/requirements.txt
    cmp -s "$wanted" "$stamp" && return
    say "Django and its servers into build/venv"
    rm -rf "$build/venv"
    mkdir -p "$build"
    python3 -m venv "$build/venv"
    "$build/venv/bin/pip" install --quiet --no-input --requirement "$wanted"
    cp "$wanted" "$stamp"
}

# axe-core, as a Python package brings it; the browser that the package would have besides is not taken.
axe=$build/axe-0.1.8/axe_playwright_python/axe.min.js
need_axe() {
    [ -e "$axe" ] && return
    say "axe-core into build/axe-0.1.8"
    "$build/venv/bin/pip" install --quiet --no-input --no-deps --target "$build/axe-0.1.8" axe-playwright-python==0.1.8
}

# A collector, and what traces a Django, into a folder of their own: nothing else needs them.
need_traces() {
    local stamp=$build/traces/requirements.txt wanted=$root/tests/traces/requirements.txt
    cmp -s "$wanted" "$stamp" && return
    say "rotel and OpenTelemetry's packages into build/traces"
    rm -rf "$build/traces"
    "$build/venv/bin/pip" install --quiet --no-input --no-deps --target "$build/traces" --requirement "$wanted"
    cp "$wanted" "$stamp"
}

# Prints the edge's path: EDGE, where somebody built it already, else built with this cargo profile.
the_edge() {
    [ -n "${EDGE:-}" ] && { echo "$EDGE"; return; }
    cargo build --quiet --locked --profile "$1" --bin vestibule --manifest-path "$root/Cargo.toml" >&2
    echo "$target/$([ "$1" = dev ] && echo debug || echo "$1")/vestibule"
}

# What debootstrap takes; sets $mirror. Arguments: what is missing, and the command that needs it.
need_root_and_mirror() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "Missing: $1. It comes by debootstrap, which takes Debian and root: run \`sudo $2\` once." >&2
        exit 2
    fi
    need debootstrap=debootstrap
    # shellcheck disable=SC2016 # apt's own syntax
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Identifier: Packages" "Label: Debian" | head -n 1)
    if [ -z "$mirror" ]; then
        echo "It comes from a Debian mirror, and this machine's apt names none." >&2
        exit 2
    fi
}

install_packages() {
    [ $# -eq 0 ] && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
            >/dev/null && return
    fi
    echo "These packages are missing. Install them, then run this again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" >&2
    exit 2
}
