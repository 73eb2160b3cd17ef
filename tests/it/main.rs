//! Black-box tests: a server of its own for each test, over HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]
#![expect(clippy::needless_pass_by_value, clippy::format_collect, reason = "cases read better in one place")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

mod archives;
mod bad_input;
mod browsing;
mod bulk;
mod bundles;
mod conditionals;
mod custom_params;
mod events;
mod evidence;
mod faults;
mod history;
mod importing;
mod instant;
mod interactions;
mod linearizable;
mod model;
mod naive;
mod operations;
mod pages;
mod past;
mod patches;
mod recovery;
mod replaying;
mod retention;
mod rewriting;
mod scopes;
mod search;
mod search_letter;
mod search_model;
mod search_more;
mod search_whole;
mod sessions;
mod sims;
mod smart;
mod submitting;
mod support;
mod templates;
mod tidy;
mod validation;
mod watching;
mod xml;
