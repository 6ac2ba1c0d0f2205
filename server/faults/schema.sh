#!/usr/bin/env bash
# Schemathesis over a running server's OpenAPI file: nothing but documented statuses, no 5xx but 501 and 503, nothing that
# contradicts the schema. `/models/sse` is left out, since it never ends. The same examples every time; with SECONDS new ones for that long, whose seed it prints.
# Usage: schema.sh SCHEMATHESIS URL [SECONDS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${3:-}" ]; then
    how=(--max-time "$3")
else
    how=(--seed 1 --generation-database none --workers 1 --phases examples,coverage,fuzzing --max-examples 8)
fi
"$1" --no-color --config-file "$here/schemathesis.toml" run "$2/openapi.json" --exclude-path /models/sse "${how[@]}"
