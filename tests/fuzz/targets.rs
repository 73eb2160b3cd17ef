//! What a client may send, in any form: nothing of it may panic. `cargo fuzz` calls these functions with what it makes up
//! (`fuzz/`), and the test beside with the kept corpus and with mutations of it.

use std::sync::{Arc, OnceLock};

use fhirsim::clock::Clock;
use fhirsim::fhir::{Definitions, FhirVersion, Resource, validate, xml};
use fhirsim::interaction::target::pairs;
use fhirsim::interaction::{Conditions, Content, Env, Interaction, Patch, Return, Whom, perform, search};
use fhirsim::sim::registry::Wanted;
use fhirsim::sim::{Draft, Registry, Sim, Stamp};
use fhirsim::simdb::EventRecord;
use fhirsim::simdb::journal::Durability;
use fhirsim::version::Operation;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","active":true,"name":[{"family":"A","given":["B",null],"_given":[null,{"id":"g"}]}],"birthDate":"1980-05",
"deceasedBoolean":false,"identifier":[{"system":"s","value":"1"}],"extension":[{"url":"u","valueDecimal":1e3}],"contained":[{"resourceType":"Group","id":"g"}]}"#;

/// A simulator with one Patient; nothing is stored in it any more.
fn sim() -> &'static Arc<Sim> {
    static SIM: OnceLock<(tempfile::TempDir, Arc<Registry>, Arc<Sim>)> = OnceLock::new();
    &SIM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (registry, _) = Registry::open(dir.path(), Durability::Process, Clock::from_fn(|| 1_700_000_000_000)).unwrap();
        let id = "a__b".parse().unwrap();
        registry.create(&id, &Wanted::default()).unwrap();
        let sim = registry.get(&id).unwrap();
        let resource = Resource::parse(PATIENT.as_bytes(), FhirVersion::R4).unwrap();
        let content = Content { type_name: "Patient", resource, text: PATIENT.to_owned(), disorder: Vec::new() };
        let put = Interaction::Update(Whom::Id("p".parse().unwrap()), content, Conditions::default());
        let stored = sim.exchange(Operation::Put, |snapshot, stamp| {
            let changes = perform(&put, snapshot, &env(stamp)).unwrap().changes;
            (Some(Draft { record: EventRecord::default(), request_body: None, response_body: None, changes }), ())
        });
        let ((), _, _) = stored.unwrap();
        (dir, registry, sim)
    })
    .2
}

fn env(stamp: Stamp) -> Env<'static> {
    Env { base: "http://h/sim/a__b/fhir", stamp, now_ms: 1_700_000_000_000, created: "", returns: Return::Representation, strict: false }
}

fn planned(interaction: &Interaction) {
    let snapshot = sim().snapshot();
    let stamp = Stamp { event: snapshot.last_event(), operation: interaction.operation() };
    let _ = perform(interaction, &snapshot, &env(stamp));
}

fn content(data: &[u8]) -> Option<Content> {
    let resource = Resource::parse(data, FhirVersion::R4).ok()?;
    Some(Content { type_name: resource.type_name(), resource, text: String::from_utf8(data.to_vec()).ok()?, disorder: Vec::new() })
}

/// A resource in JSON: validated, made XML of and back, indexed.
pub fn json_body(data: &[u8]) {
    let Some(content) = content(data) else { return };
    for version in FhirVersion::ALL {
        let definitions = Definitions::of(version);
        let _ = validate::validate(content.resource.value(), definitions);
        if let Ok(text) = xml::to_xml(&content.text, definitions) {
            assert!(xml::from_xml(text.as_bytes(), version).is_ok(), "what is written can be read: {text}");
            let _ = xml::pretty(&text);
        }
    }
    planned(&Interaction::Create(content, Conditions::default()));
}

/// A resource in XML.
pub fn xml_body(data: &[u8]) {
    for version in FhirVersion::ALL {
        let Ok(json) = xml::from_xml(data, version) else { continue };
        let Ok(resource) = Resource::parse(json.as_bytes(), version) else { continue };
        let _ = validate::validate(resource.value(), Definitions::of(version));
        let _ = xml::to_xml(&json, Definitions::of(version));
    }
}

/// A Bundle, as a batch, a transaction, and a history.
pub fn bundle(data: &[u8]) {
    let wrap: [fn(Content) -> Interaction; 3] = [Interaction::Batch, Interaction::Transaction, Interaction::Restore];
    for interaction in wrap {
        if let Some(content) = content(data).filter(|c| c.type_name == "Bundle") {
            planned(&interaction(content));
        }
    }
}

/// A patch of each kind.
pub fn patch(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let fhirpath = content(data).and_then(|c| Patch::fhirpath(&c).ok());
    for patch in [Patch::json(text).ok(), Patch::merge(text).ok(), fhirpath].into_iter().flatten() {
        planned(&Interaction::Patch("Patient", Whom::Id("p".parse().unwrap()), patch, Conditions::default()));
    }
}

/// A search of Patients, and of everything.
pub fn search_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for type_name in [Some("Patient"), Some("Observation"), None] {
        planned(&Interaction::Search(search::Request { type_name, compartment: None, parameters: pairs(text), strict: false }));
    }
}
