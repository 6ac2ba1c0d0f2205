#!/usr/bin/env bash
# Schemathesis over a running server's OpenAPI file: nothing but documented statuses, no 5xx but 501 and 503, nothing that
# contradicts the schema. Usage: schema.sh SCHEMATHESIS URL SECONDS
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$1" --no-color --config-file "$here/schemathesis.toml" run "$2/openapi.json" --max-time "$3"
