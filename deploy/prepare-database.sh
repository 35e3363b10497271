#!/bin/sh
# Before anything else of a version: the tables, the roles with their rights, and a login for each. It is given the
# owner's URLs (env.owner.example), which nothing else is. Running it again is harmless.
set -eu
ghl-pipeline db upgrade
if [ -z "${WORKER_PASSWORD:-}" ] || [ -z "${RECEIVER_PASSWORD:-}" ]; then
    echo "No WORKER_PASSWORD and RECEIVER_PASSWORD: no logins are made, and no rights are given." >&2
    exit 0
fi
ghl-pipeline db roles --apply
# By a pipe from the shell itself: no password is in a list of processes.
printf '%s\n' "$WORKER_PASSWORD" | ghl-pipeline db add-login pipeline_worker --role worker --password-stdin
printf '%s\n' "$RECEIVER_PASSWORD" | ghl-pipeline db add-login pipeline_receiver --role receiver --password-stdin
