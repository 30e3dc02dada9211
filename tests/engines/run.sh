#!/usr/bin/env bash
# `make test-engines`: real engines with littlebox-runtime, one after another.
set -uo pipefail
cd "$(dirname "$0")"
if [ "$(id -u)" -ne 0 ]; then echo "engines run containers as root" >&2; exit 1; fi
failed=()
for engine in podman containerd docker; do
  printf '\n=== %s\n' "$engine"
  "./$engine.sh" </dev/null || failed+=("$engine")
done
if [ ${#failed[@]} -gt 0 ]; then echo "FAILED: ${failed[*]}"; exit 1; fi
echo "every engine works with littlebox-runtime"
