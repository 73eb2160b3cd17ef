//! What `event.json` says of an exchange.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::fhir::definitions::nearest;
use crate::fhir::id::clip;
use crate::version::Change;

/// The name of the record in an event folder.
pub const RECORD: &str = "event.json";
/// The name of the file that tells its instant to NIST Toolkit.
pub const DATE: &str = "date.ser";

/// The names that interactions have in events: FHIR's, those of operations, our own for a Bundle that restores histories, and
/// that of what was no request.
pub const INTERACTIONS: [&str; 37] = [
    "read",
    "vread",
    "history-instance",
    "history-type",
    "history-system",
    "history-restore",
    "search-type",
    "search-system",
    "search-compartment",
    "capabilities",
    "create",
    "update",
    "patch",
    "delete",
    "batch",
    "transaction",
    "$everything",
    "$lastn",
    "$meta",
    "$meta-add",
    "$meta-delete",
    "$validate",
    "$diff",
    "$convert",
    "$purge",
    "$expunge",
    "$export",
    "$import",
    "$bulk-submit",
    "$bulk-submit-status",
    "export-status",
    "export-file",
    "export-cancel",
    "smart-configuration",
    "register",
    "token",
    "unknown",
];

/// The interaction `name`, in capitals or not, as events have it.
///
/// # Errors
/// There is none; the text names the one that may be meant.
pub fn known_interaction(name: &str) -> Result<&'static str, String> {
    INTERACTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let near = nearest(name, INTERACTIONS.into_iter()).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        format!("interaction '{}' is none of {}{near}", clip(name), INTERACTIONS.join(", "))
    })
}

/// Whether a file of an event folder can have that name: it leads nowhere else.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.')
}

/// Proves the name of a file, which a record that was edited or imported may have from anyone.
fn own_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    match name.as_deref().filter(|name| !is_file_name(name)) {
        Some(name) => Err(D::Error::custom(format!("'{}' is not the name of a file of an event", clip(name)))),
        None => Ok(name),
    }
}

/// A resource as an exchange left it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredResource {
    /// The file that holds it; none for a deletion.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "own_file")]
    pub file: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its id.
    pub id: String,
    /// The version this exchange made.
    pub version_id: u64,
    /// What was done.
    pub change: Change,
    /// The file's length.
    #[serde(default)]
    pub bytes: u32,
    /// Its last modification, where that is not the event's instant: in a rewritten history.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_updated: Option<String>,
    /// The event that made it first and the number of its file there, `2026_.../1`: in a rewritten history, where it was in one before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made: Option<String>,
    /// Whether the history of the resource begins anew with this version; the folders that held it before, `PUT/2026_...`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rewrites: Option<Vec<String>>,
    /// Whether the files of what it was before are removed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub purges: bool,
    /// Whether the file was there and was removed by a purge.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub purged: bool,
}

/// One exchange: request, response, and what it stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// The event's id, the name of its folder.
    pub event: String,
    /// Its position among the simulator's events, from 1.
    pub sequence: u64,
    /// When it was committed.
    pub instant: String,
    /// The simulator.
    pub sim: String,
    /// The interaction, as FHIR names it; `unknown` where the request was none.
    pub interaction: String,
    /// The resource type of the URL, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource_type: Option<String>,
    /// The client's address.
    pub client: String,
    /// The request.
    pub request: RequestRecord,
    /// The response.
    pub response: ResponseRecord,
    /// What was stored.
    pub resources: Vec<StoredResource>,
    /// The fault that befell the exchange, if the simulator was told to have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
    /// What is wrong with the content, where the simulator looks at it and stores it all the same: issues as an
    /// OperationOutcome has them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub issues: Vec<Value>,
    /// The claims of the token that was shown, or why it was refused; never what makes it good.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub authorization: Option<Value>,
    /// Whether the bodies of the exchange were removed: by retention.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stripped: bool,
}

/// The request of an exchange.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// HTTP method.
    pub method: String,
    /// Path and query as they came.
    pub url: String,
    /// Headers by lower-case name; repeated ones joined by comma; credentials redacted.
    pub headers: Map<String, Value>,
    /// The file with the body, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "own_file")]
    pub body: Option<String>,
    /// Length of the body.
    #[serde(default)]
    pub body_bytes: u64,
}

/// The response of an exchange.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseRecord {
    /// HTTP status.
    pub status: u16,
    /// From the request's arrival to the commit.
    pub duration_us: u64,
    /// Headers by lower-case name.
    pub headers: Map<String, Value>,
    /// The file with the body, if there was one; it may be one of the stored resources.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "own_file")]
    pub body: Option<String>,
}

/// The instant as Java serialises a `java.util.Date`, which is how NIST Toolkit reads `date.ser`.
#[must_use]
pub fn java_date(ms: i64) -> Vec<u8> {
    const HEAD: [u8; 37] = *b"\xac\xed\x00\x05\x73\x72\x00\x0e\x6a\x61\x76\x61\x2e\x75\x74\x69\x6c\x2e\x44\x61\x74\x65\x68\x6a\x81\x01\x4b\x59\x74\x19\x03\x00\x00\x78\x70\x77\x08";
    let mut bytes = HEAD.to_vec();
    bytes.extend_from_slice(&ms.to_be_bytes());
    bytes.push(0x78);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_is_as_java_writes_it() {
        let bytes = java_date(1_490_183_867_324 - 3_600_000 + 3_600_000);
        let hex = bytes.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        assert_eq!(bytes.len(), 46);
        assert_eq!(
            hex,
            "aced00057372000e6a6176612e7574696c2e44617465686a81014b59741903000078707708".to_owned() + &format!("{:016x}", 1_490_183_867_324_i64) + "78"
        );
        assert_eq!(&java_date(0x0000_015a_f5e1_3c1c)[37..45], &[0x00, 0x00, 0x01, 0x5a, 0xf5, 0xe1, 0x3c, 0x1c]);
    }
}
