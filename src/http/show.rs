//! What pages show as pictures and in colours, as HTML: JSON and XML that fold, bars, a graph. All text is escaped here; what these
//! functions return is marked safe in the templates, and nothing else is.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fhir::ResourceId;
use crate::fhir::definitions::Definitions;
use crate::fhir::xml::{Piece, pieces};

/// Something to be said at an element of a resource.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where, as FHIRPath: `Patient.name[0].family`.
    pub at: String,
    /// What.
    pub text: String,
}

/// What references in a resource lead to.
#[derive(Clone, Copy, Debug)]
pub struct Links<'a> {
    /// The simulator, whose pages they lead to.
    pub sim: &'a str,
    /// Which types there are.
    pub definitions: &'static Definitions,
}

impl Links<'_> {
    /// The page of what a literal reference within the simulator is to.
    pub fn of(&self, reference: &str) -> Option<String> {
        let within = match reference.split_once(&format!("/sim/{}/fhir/", self.sim)) {
            Some((_, within)) => within,
            None if reference.contains(':') || reference.starts_with('/') => return None,
            None => reference,
        };
        let mut parts = within.split('/');
        let type_name = self.definitions.find_resource_type(parts.next()?)?;
        let id: ResourceId = parts.next()?.parse().ok()?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(format!("/sims/{}/resources/{type_name}/{id}", self.sim)),
            (Some("_history"), Some(version), None) if version.bytes().all(|b| b.is_ascii_digit()) => {
                Some(format!("/sims/{}/resources/{type_name}/{id}?version={version}", self.sim))
            }
            _ => None,
        }
    }
}

/// The same text in HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A body in colours; none if it is neither JSON nor XML.
#[must_use]
pub fn body(name: &str, text: &str, marks: &[Mark], links: Links<'_>) -> Option<String> {
    match name.rsplit_once('.')?.1 {
        "json" => json(text, marks, links),
        "xml" => Some(xml(text, marks, links)),
        _ => None,
    }
}

/// JSON whose objects and lists fold, whose references lead somewhere and whose marked elements say what is wrong; none if it
/// is no JSON.
#[must_use]
pub fn json(text: &str, marks: &[Mark], links: Links<'_>) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut page = Page { out: String::from("<div class=\"json\">"), marks, links };
    let root = value["resourceType"].as_str().unwrap_or_default().to_owned();
    page.value(None, &value, &root, "");
    page.out.push_str("</div>");
    Some(page.out)
}

struct Page<'a> {
    out: String,
    marks: &'a [Mark],
    links: Links<'a>,
}

impl Page<'_> {
    /// A value, under its name if it has one, at a path; `end` follows it.
    fn value(&mut self, name: Option<&str>, value: &Value, path: &str, end: &str) {
        let key = name.map(|name| format!("<span class=\"k\">&quot;{}&quot;</span>: ", escape(name))).unwrap_or_default();
        let said = self.said(path);
        let (open, close, length) = match value {
            Value::Object(members) if !members.is_empty() => ('{', '}', members.len()),
            Value::Array(items) if !items.is_empty() => ('[', ']', items.len()),
            scalar => {
                let shown = self.scalar(name, scalar);
                self.out.push_str(&format!("<div>{key}{shown}{end}{said}</div>"));
                return;
            }
        };
        self.out.push_str(&format!("<details open><summary>{key}{open} <small>{length}</small>{said}</summary><div class=\"in\">"));
        match value {
            Value::Object(members) => {
                for (n, (name, member)) in (1..).zip(members) {
                    let below = if self.marks.is_empty() || path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.value(Some(name), member, &below, if n < length { "," } else { "" });
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    self.value(None, item, &if self.marks.is_empty() { String::new() } else { format!("{path}[{n}]") }, if n + 1 < length { "," } else { "" });
                }
            }
            _ => {}
        }
        self.out.push_str(&format!("</div>{close}{end}</details>"));
    }

    fn scalar(&self, name: Option<&str>, value: &Value) -> String {
        let text = escape(&value.to_string());
        let leads = value.as_str().filter(|_| matches!(name, Some("reference" | "location" | "fullUrl"))).and_then(|text| self.links.of(text));
        match (value, leads) {
            (_, Some(to)) => format!("<a href=\"{}\">{text}</a>", escape(&to)),
            (Value::String(_), None) => format!("<span class=\"s\">{text}</span>"),
            _ => format!("<span class=\"v\">{text}</span>"),
        }
    }

    /// An element of XML that has no elements in it.
    fn element(&self, tag: &str) -> String {
        let value = tag.find(" value=\"").and_then(|at| Some((at + 8, tag[at + 8..].find('"')? + at + 8)));
        let leads = value.filter(|_| ["<reference ", "<location ", "<fullUrl "].iter().any(|name| tag.starts_with(name)));
        match leads.and_then(|(from, to)| Some((from, to, self.links.of(&tag[from..to])?))) {
            Some((from, to, page)) => {
                let set_off = |text: &str| format!("<span class=\"k\">{}</span>", escape(text));
                format!("{}<a href=\"{}\">{}</a>{}", set_off(&tag[..from]), escape(&page), escape(&tag[from..to]), set_off(&tag[to..]))
            }
            None => format!("<span class=\"k\">{}</span>", escape(tag)),
        }
    }

    /// What is to be said at a path.
    fn said(&self, path: &str) -> String {
        let here = self.marks.iter().filter(|mark| !path.is_empty() && is_at(&mark.at, path, self.links.definitions));
        here.fold(String::new(), |said, mark| said + " <mark>" + &escape(&mark.text) + "</mark>")
    }
}

/// Whether what an issue names is the element at `path`: indexes that it leaves out do not count, nor does the type of a choice.
fn is_at(named: &str, path: &str, definitions: &Definitions) -> bool {
    let is_step = |named: &str, step: &str| {
        let (name, index) = named.split_once('[').map_or((named, None), |(name, index)| (name, Some(index)));
        let (key, place) = step.split_once('[').map_or((step, None), |(key, place)| (key, Some(place)));
        let is_choice = || key.strip_prefix(name).is_some_and(|type_name| definitions.types().any(|def| def.name.eq_ignore_ascii_case(type_name)));
        (index.is_none() || index == place) && (name == key || is_choice())
    };
    let (mut named, mut path) = (named.split('.'), path.split('.'));
    loop {
        match (named.next(), path.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if is_step(one, other) => {}
            _ => return false,
        }
    }
}

/// XML whose elements fold, as [`json`] does; what is not well-formed is shown all the same.
#[must_use]
pub fn xml(text: &str, marks: &[Mark], links: Links<'_>) -> String {
    /// Deeper than any that is accepted: what is, does not fold.
    const DEEPEST: usize = 2 * crate::fhir::json::MAX_DEPTH;
    let mut page = Page { out: String::from("<div class=\"json\">"), marks, links };
    let mut open: Vec<Opened<'_>> = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Opens(tag) if open.len() < DEEPEST => {
                let path = step(open.last_mut(), tag);
                page.out.push_str(&format!("<details open><summary><span class=\"k\">{}</span>{}</summary><div class=\"in\">", escape(tag), page.said(&path)));
                open.push(Opened { path, seen: BTreeMap::new() });
            }
            Piece::Closes(tag) if open.pop().is_some() => page.out.push_str(&format!("</div><span class=\"k\">{}</span></details>", escape(tag))),
            Piece::Opens(tag) | Piece::Closes(tag) | Piece::Stands(tag) => {
                let said = page.said(&step(open.last_mut(), tag));
                let shown = page.element(tag);
                page.out.push_str(&format!("<div>{shown}{said}</div>"));
            }
        }
    }
    page.out.push_str(&"</div></details>".repeat(open.len()));
    page.out.push_str("</div>");
    page.out
}

/// An element of XML that is open: where it is, and how many of each name there were in it.
struct Opened<'x> {
    path: String,
    seen: BTreeMap<&'x str, usize>,
}

/// Where what a tag begins is, in what is open. A resource in an element is the element.
fn step<'x>(open: Option<&mut Opened<'x>>, tag: &'x str) -> String {
    let name = tag.trim_start_matches('<').split(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').next().unwrap_or_default();
    match open {
        None => name.to_owned(),
        Some(open) if name.starts_with(|c: char| c.is_ascii_uppercase()) => open.path.clone(),
        Some(open) => {
            let count = open.seen.entry(name).or_default();
            *count += 1;
            format!("{}.{name}[{}]", open.path, *count - 1)
        }
    }
}

/// A bar of a picture: what it stands for, and its parts, each with a class of the style sheet.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Said where one points at it.
    pub title: String,
    /// From the bottom.
    pub parts: Vec<(&'static str, u64)>,
}

/// Bars side by side; `what` they are is said to who does not see them.
#[must_use]
pub fn bars(what: &str, bars: &[Bar]) -> String {
    const HEIGHT: u64 = 120;
    const WIDTH: usize = 12;
    let highest = bars.iter().map(|bar| bar.parts.iter().map(|(_, n)| n).sum::<u64>()).max().unwrap_or(0).max(1);
    let width = bars.len().max(1) * WIDTH;
    let mut out = format!("<svg class=\"bars\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">", escape(what));
    for (n, bar) in bars.iter().enumerate() {
        out.push_str(&format!("<g><title>{}</title>", escape(&bar.title)));
        let mut top = HEIGHT;
        for (class, count) in bar.parts.iter().filter(|(_, count)| *count > 0) {
            // What is there is seen.
            let height = (count * HEIGHT / highest).max(2).min(top);
            top -= height;
            out.push_str(&format!("<rect class=\"{class}\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{height}\"/>", n * WIDTH + 1, WIDTH - 2));
        }
        out.push_str("</g>");
    }
    out.push_str("</svg>");
    out
}

/// A resource that refers to the one in the middle of a graph, or that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// `Patient/p`.
    pub uid: String,
    /// By which element.
    pub by: String,
    /// Its page, if it is here.
    pub link: Option<String>,
}

/// What refers to a resource, at the left, and what it refers to, at the right.
#[must_use]
pub fn graph(uid: &str, into: &[Neighbour], out_of: &[Neighbour]) -> String {
    const ROW: usize = 30;
    let rows = into.len().max(out_of.len()).max(1);
    let (height, middle) = (rows * ROW + 10, rows * ROW / 2 + 5);
    let mut out = format!(
        "<svg class=\"graph\" viewBox=\"0 0 900 {height}\" role=\"img\" aria-label=\"{} resources refer to {}, which refers to {}\">",
        into.len(),
        escape(uid),
        out_of.len()
    );
    for (side, all) in [(0, into), (1, out_of)] {
        for (n, neighbour) in all.iter().enumerate() {
            let y = middle + n * ROW - (all.len() - 1) * ROW / 2;
            let (x, from, to) = if side == 0 { (10, 290, 340) } else { (610, 610, 560) };
            out.push_str(&format!("<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{middle}\"/>"));
            out.push_str(&node(x, y, &neighbour.uid, neighbour.link.as_deref(), &neighbour.by));
        }
    }
    out.push_str(&node(340, middle, uid, None, "this resource"));
    out.push_str("</svg>");
    out
}

fn node(x: usize, y: usize, uid: &str, link: Option<&str>, title: &str) -> String {
    // About as many characters as a node is wide.
    let (width, most) = if x == 340 { (220, 26) } else { (280, 34) };
    let mut shown: String = uid.chars().take(most).collect();
    if shown.len() < uid.len() {
        shown.push('…');
    }
    let inner = format!(
        "<title>{}: {}</title><rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"24\" rx=\"4\"/><text x=\"{}\" y=\"{}\">{}</text>",
        escape(title),
        escape(uid),
        y.saturating_sub(12),
        x + 8,
        y + 5,
        escape(&shown)
    );
    match link {
        Some(to) => format!("<a href=\"{}\">{inner}</a>", escape(to)),
        None => format!("<g>{inner}</g>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    fn links() -> Links<'static> {
        Links { sim: "a__b", definitions: Definitions::of(FhirVersion::R4) }
    }

    #[test]
    fn json_keeps_every_digit_and_runs_nothing() {
        let text = r#"{"resourceType":"Patient","a<b":"</div><script>x</script>","n":1.50,"empty":{},"list":[true,null]}"#;
        let shown = json(text, &[], links()).unwrap_or_default();
        assert!(!shown.contains("<script") && shown.contains("&lt;script&gt;") && shown.contains("a&lt;b"), "{shown}");
        assert!(shown.contains("1.50") && shown.contains("{}") && shown.matches("<details").count() == 2, "{shown}");
        assert_eq!(shown.matches("<div").count(), shown.matches("</div>").count());
        assert!(json("{", &[], links()).is_none());
    }

    #[test]
    fn references_lead_to_pages_of_this_simulator_only() {
        for (reference, page) in [
            ("Patient/p", Some("/sims/a__b/resources/Patient/p")),
            ("Patient/p/_history/3", Some("/sims/a__b/resources/Patient/p?version=3")),
            ("http://x:1/sim/a__b/fhir/Patient/p", Some("/sims/a__b/resources/Patient/p")),
            ("http://x:1/sim/other__b/fhir/Patient/p", None),
            ("https://else.example/Patient/p", None),
            ("urn:uuid:1", None),
            ("#p", None),
            ("Nothing/p", None),
            ("Patient/p/_history/3\"><", None),
            ("Patient?identifier=x", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(links().of(reference).as_deref(), page, "{reference}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        let mark = |at: &str| [Mark { at: at.to_owned(), text: "bad <x>".to_owned() }];
        let text = r#"{"resourceType":"Patient","name":[{"family":"A"},{"family":"B"}]}"#;
        let marked = |at: &str| json(text, &mark(at), links()).unwrap_or_default().matches("<mark>bad &lt;x&gt;</mark>").count();
        assert_eq!([marked("Patient.name[1].family"), marked("Patient.name.family"), marked("Patient"), marked("Patient.birthDate")], [1, 2, 1, 0]);
        assert!(json(r#"{"resourceType":"Observation","valueString":1}"#, &mark("Observation.value"), links()).unwrap_or_default().contains("<mark>"));
    }

    #[test]
    fn xml_folds_and_says_what_is_wrong_where_it_is() {
        let mark = |at: &str| [Mark { at: at.to_owned(), text: "bad".to_owned() }];
        let text = r#"<Observation xmlns="http://hl7.org/fhir"><text><div><p>a</p></div></text><subject><reference value="Patient/p"/></subject>
            <category id="1"/><category id="2"/><valueString value="&lt;x"/><contained><Basic><code/></Basic></contained></Observation>"#;
        let shown = |at: &str| xml(text, &mark(at), links());
        assert_eq!(shown("").matches("<details").count(), 5);
        assert!(shown("").contains("<a href=\"/sims/a__b/resources/Patient/p\">Patient/p</a>") && shown("").contains("&amp;lt;x"), "{}", shown(""));
        let marked = |at: &str, what: &str| shown(at).split("</div>").any(|line| line.contains(what) && line.contains("<mark>bad</mark>"));
        assert!(marked("Observation.category[1]", "id=&quot;2&quot;") && !marked("Observation.category[1]", "id=&quot;1&quot;"));
        assert!(marked("Observation.value", "valueString") && marked("Observation.contained[0].code", "&lt;code/"));
        for hostile in ["<a>", "</a>", "<script>alert(1)</script>", "<a><b></a></b></c>", &"<a>".repeat(5_000)] {
            let shown = xml(hostile, &[], links());
            assert!(!shown.contains("<script") && !shown.contains("<a>"), "{shown}");
            assert_eq!(shown.matches("<div").count(), shown.matches("</div>").count(), "{hostile}");
            assert_eq!(shown.matches("<details").count(), shown.matches("</details>").count(), "{hostile}");
        }
    }

    #[test]
    fn pictures_are_whole_with_nothing_in_them() {
        for picture in
            [bars("none", &[]), graph("Patient/p", &[], &[]), graph("Patient/p", &[Neighbour { uid: "<x>".into(), by: "\"".into(), link: None }], &[])]
        {
            assert!(picture.starts_with("<svg") && picture.ends_with("</svg>") && !picture.contains("<x>"), "{picture}");
        }
    }
}
