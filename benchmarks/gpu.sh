#!/usr/bin/env bash
# Everything that waits for a GPU, in at most 8 minutes, to one JSON; called again, it goes on. See benchmarks/gpu.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu "$@"
