#!/usr/bin/env bash
# Writes SCREENS.md beside this file: what the command shows, captured from a terminal of 100 columns.
# Needs script and tmux, and cargo build --release. Times, pids and addresses of memory differ from run to run.
set -euo pipefail
cd "$(dirname "$0")/.."
wasmpool=$PWD/target/release/wasmpool
guests=guest-tasks/prebuilt
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export WASMPOOL_CACHE_DIR=$dir/cache PATH=$PWD/target/release:$PATH

# Runs a line in a terminal, and keeps what stands there at the end: of what is drawn over, the last.
terminal() {
  script -qec "stty cols 100 rows 40; $1" /dev/null </dev/null | tr -d '\r' |
    sed -e 's/.*\x1b\[2K//' -e 's/\x1b\[[0-9;?]*[A-Za-z]//g' -e 's/[[:space:]]*$//'
}

screen() {
  printf '\n## %s\n\n```text\n$ %s\n' "$1" "$2"
  terminal "$2" || true
  printf '```\n'
}

# While something is under way: what stands on the terminal after two seconds.
moment() {
  printf '\n## %s\n\n```text\n$ %s\n' "$1" "$2"
  tmux -L "screens-$$" new-session -d -x 100 -y 40 "bash -c '$2 >/dev/null'"
  sleep 2
  tmux -L "screens-$$" capture-pane -p | sed -e 's/[[:space:]]*$//' | grep -v '^$'
  tmux -L "screens-$$" kill-server
  printf '```\n'
}

{
  printf '# Screens\n\nWritten by `docs/screens.sh`.\n'
  screen 'run' "wasmpool run $guests/primes.wasm count --input 1000000"
  screen 'run, failing' "wasmpool run $guests/faults.wasm own_error --input '\"no such customer\"'"
  screen 'inspect' "wasmpool inspect $guests/primes.wasm"
  moment 'map, watched' "seq 2000000 2100000 | wasmpool map $guests/primes.wasm count --watch"
  screen 'map, failing' "printf '10\\nten\\n30\\n' | wasmpool map $guests/primes.wasm count"
  screen 'map, dry run' "printf '10\\nten\\n' | wasmpool map $guests/primes.wasm count --dry-run"
  screen 'bench' "wasmpool bench $guests/primes.wasm count --input 1000 --time 1s"
  screen 'doctor' 'wasmpool doctor | head -n 26'
  screen 'config' 'WASMPOOL_WORKERS=4 wasmpool config'
} | sed "s|$dir/cache|~/.cache/wasmpool|" >docs/SCREENS.md
echo 'docs/SCREENS.md is written'
