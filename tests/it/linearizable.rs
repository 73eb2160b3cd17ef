//! Sixteen clients at once: is what they saw what one after the other would have seen?
//!
//! Each history is a small simulator of its own. A write's place in the order is that of its event; the checker replays the
//! writes in that order on a sequential model, demands the same answers, and demands that the order is the one of real time
//! wherever two requests did not overlap. For every read it looks for a moment between its beginning and its end at which
//! the model would have answered the same, no earlier than that of any read that ended before.
//!
//! `LINEAR_HISTORIES` sets how many histories, `LINEAR_SEED` other ones.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::naive::rng::Rng;
use crate::support::{Client, Reply, TestServer};

mod model;

use model::{Model, Op, Seen, Version};

const HISTORIES: u64 = 1_000;
const CLIENTS: usize = 16;
/// Requests of each client.
const REQUESTS: usize = 2;

/// A request that was answered.
struct Done {
    op: Op,
    seen: Seen,
    /// Of a write.
    event: Option<String>,
    began: u64,
    ended: u64,
}

fn request(client: &Client, sim: &str, op: &Op) -> (Seen, Option<String>) {
    let (method, path, headers, body) = op.request();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let reply = client.send(method, &format!("/sim/{sim}/fhir{path}"), &headers, body.as_bytes());
    let event = (!op.is_read()).then(|| reply.header("x-fhirsim-event").to_owned());
    (seen(op, &reply), event)
}

/// What an answer says, in the model's words.
fn seen(op: &Op, reply: &Reply) -> Seen {
    let version = |resource: &Value| Version {
        id: resource["id"].as_str().unwrap().to_owned(),
        number: resource["meta"]["versionId"].as_str().unwrap().parse().unwrap(),
        family: resource["name"][0]["family"].as_str().unwrap().to_owned(),
    };
    let mut found = Vec::new();
    if reply.status < 300 && !reply.bytes.is_empty() {
        let body = reply.json();
        let entries = body["entry"].as_array().cloned().unwrap_or_default();
        match op {
            Op::Transaction { .. } => found.extend(entries.iter().map(|e| {
                let location: Vec<&str> = e["response"]["location"].as_str().unwrap().split('/').collect();
                Version { id: location[1].to_owned(), number: location[3].parse().unwrap(), family: String::new() }
            })),
            Op::History { id } => found.extend(entries.iter().map(|e| {
                let number = e["response"]["etag"].as_str().unwrap().trim_start_matches("W/").trim_matches('"').parse().unwrap();
                let deletion = || Version { id: id.clone(), number, family: "-".to_owned() };
                e.get("resource").map_or_else(deletion, version)
            })),
            Op::Search { .. } => {
                found.extend(entries.iter().map(|e| version(&e["resource"])));
                found.sort();
                assert_eq!(body["total"], found.len(), "{body}");
            }
            _ => found.push(version(&body)),
        }
    }
    Seen { status: reply.status, found }
}

/// All clients do what they are to do, at once.
fn run(clients: &[Client], sim: &str, plans: Vec<Vec<Op>>) -> Vec<Done> {
    let (tick, start) = (AtomicU64::new(0), Barrier::new(clients.len()));
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .zip(plans)
            .map(|(client, plan)| {
                let (tick, start) = (&tick, &start);
                scope.spawn(move || {
                    start.wait();
                    let one = |op: Op| {
                        let began = tick.fetch_add(1, Ordering::SeqCst);
                        let (seen, event) = request(client, sim, &op);
                        Done { op, seen, event, began, ended: tick.fetch_add(1, Ordering::SeqCst) }
                    };
                    plan.into_iter().map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

/// Why the history is not linearizable.
fn check(done: &[Done]) -> Result<(), String> {
    let mut writes: Vec<&Done> = done.iter().filter(|d| d.event.is_some()).collect();
    writes.sort_by(|a, b| a.event.cmp(&b.event));
    let mut model = Model::default();
    let mut states = vec![model.clone()];
    for (n, write) in writes.iter().enumerate() {
        let expected = model.write(&write.op, &write.seen);
        if expected != write.seen {
            return Err(format!("write {n}, {:?}: expected {expected:?}, got {:?}", write.op, write.seen));
        }
        if let Some(later) = writes[n + 1..].iter().find(|later| later.ended < write.began) {
            return Err(format!("{:?} ended before {:?} began, but is ordered after it", later.op, write.op));
        }
        states.push(model.clone());
    }
    model.ids_are_new()?;
    let mut reads: Vec<&Done> = done.iter().filter(|d| d.event.is_none()).collect();
    reads.sort_by_key(|read| read.began);
    let mut placed: Vec<(u64, usize)> = Vec::new();
    for read in reads {
        let before = writes.iter().rposition(|w| w.ended < read.began).map_or(0, |n| n + 1);
        let others = placed.iter().filter(|(ended, _)| *ended < read.began).map(|(_, at)| *at).max().unwrap_or(0);
        let last = writes.iter().position(|w| w.began > read.ended).unwrap_or(writes.len());
        let at = (before.max(others)..=last).find(|at| states[*at].read(&read.op) == read.seen);
        let at = at.ok_or_else(|| {
            let would: Vec<Seen> = (before.max(others)..=last).map(|at| states[at].read(&read.op)).collect();
            format!("{:?} saw {:?}, which was never so while it ran; it would have been {would:?}", read.op, read.seen)
        })?;
        placed.push((read.ended, at));
    }
    Ok(())
}

fn shown(done: &[Done]) -> String {
    let mut lines: Vec<(u64, String)> =
        done.iter().map(|d| (d.began, format!("{}-{} {} {:?} {:?}", d.began, d.ended, d.event.as_deref().unwrap_or("read"), d.op, d.seen))).collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn histories_of_sixteen_clients_are_linearizable() {
    let server = TestServer::start();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let seed = setting("LINEAR_SEED", 1);
    let mut rng = Rng::new(seed);
    let mut kinds = std::collections::BTreeMap::new();
    for n in 0..setting("LINEAR_HISTORIES", HISTORIES) {
        let sim = format!("h{seed}__n{n}");
        let mut unique = 0;
        let mut op = || {
            unique += 1;
            Op::random(&mut rng, unique)
        };
        let plans = (0..CLIENTS).map(|_| (0..REQUESTS).map(|_| op()).collect()).collect();
        let done = run(&clients, &sim, plans);
        for d in &done {
            *kinds.entry((d.op.name(), d.seen.status)).or_insert(0) += 1;
        }
        if let Err(reason) = check(&done) {
            panic!("history {n} of seed {seed}: {reason}\n{}", shown(&done));
        }
        clients[0].delete(&format!("/api/sims/{sim}")).expect(204);
    }
    // What is never refused, or always, proves little.
    for (name, status) in [
        ("put", 200),
        ("put", 412),
        ("put-where", 201),
        ("put-where", 412),
        ("patch", 200),
        ("patch", 404),
        ("patch-where", 200),
        ("create", 200),
        ("create", 412),
        ("delete-where", 412),
        ("transaction", 200),
        ("transaction", 400),
        ("transaction", 412),
        ("read", 200),
        ("read", 410),
        ("search", 200),
    ] {
        assert!(kinds.get(&(name, status)).is_some_and(|n| *n > 10), "{name} {status}: {kinds:?}");
    }
}

#[test]
fn the_checker_sees_what_is_not_linearizable() {
    let put = |family: &str, version: u64, event: &str, began: u64, ended: u64| Done {
        op: Op::Put { id: "a".into(), ident: "x".into(), family: family.into(), if_match: None, only_new: false },
        seen: Seen { status: if version == 1 { 201 } else { 200 }, found: vec![Version { id: "a".into(), number: version, family: family.into() }] },
        event: Some(event.into()),
        began,
        ended,
    };
    let read = |family: &str, version: u64, began: u64, ended: u64| Done {
        op: Op::Read { id: "a".into() },
        seen: Seen { status: 200, found: vec![Version { id: "a".into(), number: version, family: family.into() }] },
        event: None,
        began,
        ended,
    };
    let good = || vec![put("F1", 1, "1", 0, 3), put("F2", 2, "2", 2, 9), read("F1", 1, 4, 5), read("F2", 2, 6, 7)];
    assert_eq!(check(&good()), Ok(()));
    let broken: [(&str, Vec<Done>); 6] = [
        ("a lost update", vec![put("F1", 1, "1", 0, 1), put("F2", 1, "2", 2, 3)]),
        ("a gap", vec![put("F1", 1, "1", 0, 1), put("F2", 3, "2", 2, 3)]),
        ("an order against time", vec![put("F2", 1, "1", 4, 5), put("F1", 2, "2", 0, 1)]),
        ("a stale read", vec![put("F1", 1, "1", 0, 1), put("F2", 2, "2", 2, 3), read("F1", 1, 4, 5)]),
        ("a read from the future", vec![put("F1", 1, "1", 0, 1), read("F2", 2, 2, 3), put("F2", 2, "2", 4, 5)]),
        ("reads that go back", vec![put("F1", 1, "1", 0, 1), put("F2", 2, "2", 2, 9), read("F2", 2, 3, 4), read("F1", 1, 5, 6)]),
    ];
    for (what, history) in broken {
        assert!(check(&history).is_err(), "{what}");
    }
}
