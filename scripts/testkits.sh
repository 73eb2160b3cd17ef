#!/usr/bin/env bash
# The examples of docs/testing-with-fhirsim.md against a server of their own; argument: the binary. Installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="$(realpath "${1:-target/debug/fhirsim}")"
need() { command -v "$1" >/dev/null || { apt-get update -qq && apt-get install -y -qq "$2"; }; }
need jq jq
need curl curl
need node nodejs
need javac default-jdk-headless
folder="$(mktemp -d)"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pytest "pyjwt[crypto]" smart-fetch==1.0.3
# it prints where it listens when it does
exec 3< <(exec "$binary" serve --addr 127.0.0.1:0 --simdb "$folder/simdb" --log warn)
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
read -r line <&3
FHIRSIM_SERVER="$(grep -o 'http://[^ ]*' <<<"$line" | head -1)"
export FHIRSIM_SERVER
testkits/shell/example.sh
node --test testkits/javascript/
java testkits/java/Example.java
PYTHONPATH=testkits/python "$folder/venv/bin/pytest" -q -p pytest_fhirsim -p no:cacheprovider testkits/python/tests
# with a server that the plugin starts
env -u FHIRSIM_SERVER FHIRSIM_BINARY="$binary" PYTHONPATH=testkits/python "$folder/venv/bin/pytest" -q -p pytest_fhirsim -p no:cacheprovider testkits/python/tests
