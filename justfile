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

# one fuzz target: json_body, xml_body, bundle, patch, search_query (needs cargo-fuzz and a nightly compiler)
fuzz target seconds="3600":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}} -max_len=65536

# more than CI tries, with other numbers: histories of 16 clients, random searches, mutations of the fuzz corpus
long seed:
    LINEAR_SEED={{seed}} LINEAR_HISTORIES=20000 cargo test --release --test it histories_of_sixteen
    NAIVE_SEED={{seed}} cargo test --release --test it search_model
    FUZZ_SEED={{seed}} FUZZ_MUTATIONS=20000 cargo test --release --test fuzz

# the figures of docs/benchmarks.md
bench:
    scripts/bench.py
