//! The limits that the figures of `docs/benchmarks.md` are compared with.
//!
//!     cargo bench --bench limits -- http PORT FILE        answers every request with FILE from memory, by bare actix-web
//!     cargo bench --bench limits -- folders DIR N         writes N event folders of four files each, as a create does
//!     cargo bench --bench limits -- events N              finds events by what they are about among N

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpResponse, HttpServer};
use fhirsim::clock::EventId;
use fhirsim::simdb::event_index::{EventIndex, Fact, Filter, Row};
use fhirsim::simdb::{EventRecord, SimDir};
use fhirsim::version::Operation;

fn main() -> Result<(), Box<dyn Error>> {
    // cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["http", port, file] => http(port.parse()?, &fs::read(file)?),
        ["events", count] => events(count.parse()?),
        ["folders", dir, count] => folders(Path::new(dir), count.parse()?),
        _ => {
            println!("nothing to do: say http PORT FILE, folders DIR N, or events N");
            Ok(())
        }
    }
}

fn http(port: u16, file: &[u8]) -> Result<(), Box<dyn Error>> {
    let body = Bytes::copy_from_slice(file);
    actix_web::rt::System::new().block_on(async {
        HttpServer::new(move || {
            let body = body.clone();
            App::new().default_service(web::to(move || {
                let body = body.clone();
                async move { HttpResponse::Ok().content_type("application/fhir+json").body(body) }
            }))
        })
        .bind(("127.0.0.1", port))?
        .run()
        .await
    })?;
    Ok(())
}

fn events(count: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let index = EventIndex::new(SimDir::new(dir.path(), &"a__b".parse().map_err(|_| "id")?), "", Some(0));
    fs::create_dir_all(dir.path().join("a__b"))?;
    for n in 0..count {
        let mut record = EventRecord {
            interaction: "create".to_owned(),
            client: "127.0.0.1".to_owned(),
            resource_type: Some("Patient".to_owned()),
            ..EventRecord::default()
        };
        record.request.url = format!("/sim/a__b/fhir/Patient/{n}");
        record.response.status = if n % 100_000 == 0 { 422 } else { 201 };
        let event = EventId::first_of(i64::try_from(n)?);
        index.push(Row::of(&record, event, Operation::Post));
    }
    let all = (EventId::ZERO, EventId::from_u64(u64::MAX));
    let about = |fact, value: &str| Filter { facts: vec![(fact, vec![value.to_owned()])], ..Filter::default() };
    let asked = [
        ("all, first page", Filter::default()),
        ("the oldest resource", about(Fact::Resource, "Patient/0")),
        ("nothing", about(Fact::Trace, "none")),
        ("422", Filter { statuses: vec![(422, 422)], ..Filter::default() }),
    ];
    index.save()?;
    let begun = Instant::now();
    index.find(&Filter::default(), all, true, 1)?;
    println!("{count} events, {} MB; the first time {:?}", fs::metadata(dir.path().join("a__b/events.idx"))?.len() >> 20, begun.elapsed());
    for (what, filter) in asked {
        let begun = Instant::now();
        let found = index.find(&filter, all, true, 100)?.len();
        println!("{what}: {found} in {:?}", begun.elapsed());
    }
    Ok(())
}

fn folders(dir: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let (staging, place) = (dir.join("staging"), dir.join("POST"));
    fs::create_dir_all(&staging)?;
    fs::create_dir_all(&place)?;
    let resource = vec![b'x'; 2_000];
    let record = vec![b'y'; 1_200];
    let mut took: Vec<u128> = Vec::with_capacity(count);
    let started = Instant::now();
    for n in 0..count {
        let one = Instant::now();
        let staged = staging.join(n.to_string());
        fs::create_dir(&staged)?;
        for (name, bytes) in [("event.json", &record), ("request_body.json", &resource), ("Patient1.json", &resource)] {
            fs::File::create_new(staged.join(name))?.write_all(bytes)?;
        }
        fs::File::create_new(staged.join("date.ser"))?.write_all(&[0; 46])?;
        fs::rename(&staged, place.join(n.to_string()))?;
        took.push(one.elapsed().as_micros());
    }
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    println!("{{\"folders\": {count}, \"seconds\": {seconds:.3}, \"p50_us\": {}, \"p99_us\": {}}}", took[count / 2], took[count * 99 / 100]);
    Ok(())
}
