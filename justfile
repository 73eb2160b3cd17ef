# what .ci/run runs
check:
    .ci/run

# a server with data to try
demo:
    cargo run --release -- serve --demo

# the FHIR tables, from the packages of the npm registry
definitions:
    scripts/definitions.py

# every example of the specification against a running server
examples server="http://127.0.0.1:8080":
    scripts/spec_examples.py --server {{server}}

# the figures of docs/benchmarks.md
bench:
    scripts/bench.py
