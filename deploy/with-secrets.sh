#!/bin/sh
# Runs a command with its secrets in the environment, where the project looks for them.
#
# NAME_FILE names a file that holds NAME, as Docker's and Kubernetes' secrets are; an empty file means that there is none.
# GOOGLE_CREDENTIALS_JSON holds a service account's key itself, as Amazon ECS hands it over; Google's libraries want a file.
set -eu

for name in DAGSTER_PG_PASSWORD DATABASE_URL LEDGER_URL AZURE_STORAGE_KEY AZURE_STORAGE_SAS_TOKEN ALERT_URLS; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    if [ -n "$value" ]; then
      export "$name=$value"
    fi
    unset "${name}_FILE"
  fi
done

if [ -n "${GOOGLE_CREDENTIALS_JSON:-}" ]; then
  GOOGLE_APPLICATION_CREDENTIALS=$(mktemp "${TMPDIR:-/tmp}/google-credentials.XXXXXX")
  printf '%s' "$GOOGLE_CREDENTIALS_JSON" > "$GOOGLE_APPLICATION_CREDENTIALS"
  export GOOGLE_APPLICATION_CREDENTIALS
  unset GOOGLE_CREDENTIALS_JSON
fi

exec "$@"
