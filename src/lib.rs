//! fhirsim hosts many isolated FHIR endpoints ("simulators") in one server, for people who test FHIR systems.
//!
//! This page is the architecture: the map, the layers, the invariants, and one request walked through.
//!
//! # The idea in one line
//!
//! **An interaction is a pure plan; one commit makes it true.**
//!
//! ```text
//! URL ── SimContext (who) ── Interaction (what) ── perform(&Snapshot) ── Reply + changes ── commit ── response
//!                                                                                    │
//!                                          event folder (truth) ── recent writes ── tantivy index (derived)
//! ```
//!
//! # Layers
//!
//! Imports go strictly down; modules of one layer never import each other. `tests/it/tidy.rs` checks every `use`.
//!
//! | layer | modules | what they know |
//! |---|---|---|
//! | L7 | [`cli`] [`testing`] | the commands; a server within a test |
//! | L6 | [`config`] | the settings: flags, environment, file |
//! | L5 | [`http`] | actix, media types, headers, pages |
//! | L4 | [`interaction`] | the FHIR interactions, one file each |
//! | L3 | [`sim`] | snapshots, the commit, opening and closing, the registry |
//! | L2 | [`simdb`] [`index`] [`search`] | event folders; the index; what a search means |
//! | L1 | [`version`] [`smart`] | where a version of a resource lies and how it came to be; clients, tokens and scopes of SMART |
//! | L0 | [`fhir`] [`query`] [`clock`] | FHIR's own notions; the tree both indexes execute; instants and event ids |
//!
//! # Invariants
//!
//! **Invariant:** the event folders are the truth. The index is derived: delete `simindex/`, restart, and every answer is
//! as before.
//!
//! **Invariant:** [`sim::Sim::exchange`] is the only way to write. It plans under the simulator's lock, writes one event
//! folder, makes it appear by one rename, publishes the new snapshot, and only then lets the response go. So a transaction
//! is atomic because a folder is, and every write is recorded because recording *is* the write.
//!
//! **Invariant:** an interaction sees a [`sim::Snapshot`] and nothing else: no disk path, no socket, no clock, no lock. A
//! snapshot never changes under its reader.
//!
//! **Invariant:** tantivy is never committed on a request's path. New versions go to [`index::Recent`], which holds the same
//! keys as tantivy would; what is recent masks what is committed.
//!
//! **Invariant:** resources are served as the bytes they are stored as. They are stored as they came but for `id`,
//! `meta.versionId` and `meta.lastUpdated`, and in a transaction the references that the specification has rewritten. XML is
//! turned into JSON at the edge and back ([`fhir::xml`]); nothing below knows of it.
//!
//! **Invariant:** a version once stored is never changed. What rewrites a history ([`sim::Rewrites`]: meta operations, a Bundle
//! of type history, a purge) stores all of it again in an event of its own, which masks what was; each version
//! keeps its place among all ([`version::Made`]), so that no list is in another order for it. Files are removed by a purge,
//! after its event is committed, and by retention ([`sim::retention`]), after what is to go is written down.
//!
//! **Invariant:** a base, what a snapshot sealed ([`sim::instant`]), is never written again, whoever builds on it. A simulator's events
//! are later than all of its base's, so an event's id tells which directory holds it; the segments of the base's index come first
//! in its own ([`index::Committed`]), under numbers that never change.
//!
//! **Invariant:** no path is built from a client's text without a type that proved it ([`simdb::SimId`],
//! [`simdb::BaseId`], [`clock::EventId`], [`version::Place`]).
//!
//! **Invariant:** lower layers know no HTTP. They return [`fhir::Failure`]; [`interaction::status`] is the one table from
//! kinds of failure to status codes.
//!
//! **Invariant:** what a search may cost is counted in steps ([`index::Budget`]), not timed: the same search on the same data
//! is always accepted or always refused. Chains, lists and value sets are looked up while a search is compiled
//! ([`search::Lookup`]); what is left is a tree that both indexes execute alike.
//!
//! Search expressions are evaluated by a subset of FHIRPath of our own that borrows from the resource ([`search::path::Path`]: forty
//! times as fast as an engine, and all expressions of the specification are in it); what a user's own SearchParameter says
//! beyond it goes to a library, fenced in ([`search::path::library`], [`search::path::limits`]).
//!
//! Deliberately absent: thread-locals (but for what an evaluation by that library has left), a hand-written indexer per resource type, an ORM, a cache of parsed resources.
//!
//! # One request: `POST /sim/lab__one/fhir/Patient`
//!
//! 1. [`http::routes`] has all URLs. `http::serve` finds the simulator that the URL names (`http::context`), reads the body
//!    with a limit and a timeout (`http::body`), and decides what is asked (`http::negotiate`, `http::decode`): an
//!    [`interaction::Interaction::Create`] whose JSON has proven its `resourceType` ([`fhir::Resource`]).
//! 2. `http::exchange` calls [`sim::Sim::exchange`], which takes the simulator's lock, gives the event its id
//!    ([`clock::EventId`]), and lets the plan run on the newest snapshot.
//! 3. [`interaction::create`] evaluates `If-None-Exist`, chooses an id, splices `id` and `meta` into the bytes
//!    ([`fhir::raw`]), and extracts the keys the resource is found by ([`search::extract()`]).
//! 4. The commit writes `simdb/lab__one/fhir/POST/<event>/` ([`simdb::write`]), appends to the journal if writes shall
//!    survive a power loss ([`simdb::journal`]), publishes the next snapshot, gives the event a row in the event index
//!    ([`simdb::event_index`]), and tells those who wait or stream ([`sim::feed`]).
//! 5. `http::respond` sends what the event folder has recorded, with `X-Fhirsim-Event` naming it.
//! 6. Later a background thread moves recent versions into tantivy (`sim::lifecycle`), and indexes anew when search
//!    parameters of the simulator's own came or went ([`sim::reindex`]).
//!
//! # Where things are added
//!
//! - A search modifier: its name in [`search::parse::Modifier::of`], its query beside its type in `search/param/`.
//! - A condition that is no search parameter: a member of [`search::condition::Condition`].
//! - A fault: a member of [`sim::faults::Effect`], what it does in `http/faults.rs`, a preset.
//! - Something that events are asked for by: a member of [`simdb::event_index::Fact`].
//! - A credential that records must not keep: `http/secrets.rs`.
//! - What a page shows: its values in `http/pages/`, a template; colours and pictures in `http/show.rs`.
//! - A parameter of an export: what it asks for in `http/bulk/ask.rs`, what it makes of the files in [`sim::bulk::export`]. Work that goes on
//!   after its request was answered is a job of [`sim::bulk`].
//! - A setting of a simulator: a field of [`sim::Settings`]; an interaction sees it in its snapshot.
//! - A search parameter type: a file in `search/param/`, named in [`search::params::is_supported`].
//! - An interaction: a file in `interaction/`, a member of [`interaction::Interaction`]; the compiler lists the rest. Its name in
//!   [`simdb::event::INTERACTIONS`], by which events and faults are asked for.
//! - An operation: a file in `interaction/operation/`, a row of [`interaction::operation::ALL`], its name as above.
//! - A rule of structure: `fhir/validate/`; what becomes of it is decided in `interaction/structure.rs`.
//! - A FHIR version: three tables made by `scripts/definitions.py`, a member of [`fhir::FhirVersion`].

pub mod cli;
pub mod clock;
pub mod config;
pub mod fhir;
pub mod http;
pub mod index;
pub mod interaction;
pub mod query;
pub mod search;
pub mod sim;
pub mod simdb;
pub mod smart;
pub mod testing;
pub mod version;
