#!/usr/bin/env bash
# curl and jq: FHIRSIM_SERVER=http://127.0.0.1:8080 testkits/shell/example.sh
set -euo pipefail
server="${FHIRSIM_SERVER:-http://127.0.0.1:8080}"
api="$server/api/sims"

curl -sf -X DELETE "$api/shell__patient" || true
base="$(curl -sf -d '{"id":"shell__patient"}' "$api" | jq -r .base)"
directory="$(curl -sf "$api/shell__patient" | jq -r .directory)"
curl -sf -d '{"name":"start"}' "$api/shell__patient/markers" >/dev/null

# stands for the system under test
curl -sf -H 'Content-Type: application/fhir+json' -d '{"resourceType":"Patient","name":[{"family":"Chalmers"}]}' "$base/Patient" >/dev/null &

event="$(curl -sf -G "$api/shell__patient/events" -d since=marker:start -d type=Patient -d status=201 -d wait=30s \
  --data-urlencode "request=name.family = 'Chalmers'" | jq -er '.events[0]')"
wait

# the same from the folder, if it lies on this machine: what was sent, byte for byte
if test -d "$directory"; then
  test "$(jq -r '.name[0].family' "$directory/$(jq -r .folder <<<"$event")/request_body.json")" = Chalmers
fi
echo "the app posted a patient"
