#!/usr/bin/env bash
# Run Autobahn's WebSocket conformance suite against FramesProtocol; exit 1 if a case fails.
#
#   tests/autobahn/run.sh [CASES...]     CASES as in "1.*" "12.1.3"; "*" for all, which takes 8 minutes.
#
# Without any: everything but compression (groups 12 and 13), and of that one set in each direction and kind. The rest of
# it repeats those with other offers.
#
# The suite is Python 2.7 software. It gets a virtual environment of its own under .build/autobahn, made with the
# python2.7 that PYTHON27 names, that is on the path, or that pyenv has. Debian has had no package of it since
# version 11, nor of pypy for 2.7 since 12.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
python=${PYTHON:-$root/.venv/bin/python}
build=$root/.build/autobahn
suite=25.10.1
[ $# -gt 0 ] || set -- '1.*' '2.*' '3.*' '4.*' '5.*' '6.*' '7.*' '9.*' '10.*' '12.1.*' '12.4.*' '13.1.*' '13.7.*'

find_python27() {
  local candidate
  for candidate in "${PYTHON27:-}" python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7; do
    # A pyenv shim is on the path even where no version of its kind is selected: only one that runs counts.
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "autobahn: no Python 2.7 found; name one with PYTHON27=/path/to/python2.7" >&2
  return 1
}

if ! "$build/venv/bin/wstest" --help >/dev/null 2>&1; then
  python27=$(find_python27)
  rm -rf "$build"
  "$python" -m venv "$build/tools"
  # The last virtualenv that can make an environment for 2.7.
  "$build/tools/bin/pip" install -q --disable-pip-version-check 'virtualenv==20.21.1'
  "$build/tools/bin/virtualenv" -q -p "$python27" "$build/venv"
  "$build/venv/bin/pip" install -q --disable-pip-version-check "autobahntestsuite==$suite" 2>&1 | { grep -v DEPRECATION || true; }
fi

# The echo server, on a port that it chooses. 16 MiB is the largest message of group 9.
mkfifo "$build/ready.$$"
"$python" -m tests.live.servers.echo --compression --limit 16777216 >"$build/ready.$$" 2>"$build/server.log" &
server=$!
exec 3<"$build/ready.$$"  # open until the end: the server has a last word to say
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -f "$build/ready.$$"' EXIT
read -r _ port <&3

cases=$(printf '"%s",' "$@")
cat >"$build/spec.json" <<SPEC
{
  "outdir": "$build/report",
  "servers": [{"agent": "tidewire", "url": "ws://127.0.0.1:$port/connection/echo"}],
  "cases": [${cases%,}],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
SPEC
rm -rf "$build/report"
"$build/venv/bin/wstest" -m fuzzingclient -s "$build/spec.json" >"$build/suite.log" 2>&1

"$python" tests/autobahn/verdict.py "$build/report/index.json"
