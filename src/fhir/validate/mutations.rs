//! Valid resources, broken at a random place in a way that is known: the validator has to name the place.
//!
//! Places are found by a naive model: [`TypeDef::of_member`](super::super::definitions::TypeDef::of_member) for each member
//! anew, and not the compiled schema.

use serde_json::{Value, json};

use super::super::definitions::Element;
use super::super::{Definitions, FhirVersion};
use super::*;

/// A value in a resource.
struct Spot {
    /// JSON pointer of the object that has the member, and the member's name.
    parent: String,
    key: String,
    /// Its index, if it is an item of the member.
    index: Option<usize>,
    expression: String,
    parent_expression: String,
    element: &'static Element,
    /// Of a choice, the type it has; else the only one.
    ty: &'static str,
    /// Which resource of those in the whole it belongs to.
    resource: usize,
}

impl Spot {
    fn pointer(&self) -> String {
        let member = format!("{}/{}", self.parent, self.key);
        self.index.map_or(member.clone(), |index| format!("{member}/{index}"))
    }

    fn is_member(&self) -> bool {
        self.index.is_none()
    }
}

struct Spots {
    definitions: &'static Definitions,
    found: Vec<Spot>,
    resources: usize,
}

/// Where the naive walk is.
#[derive(Clone)]
struct Here {
    base: String,
    path: String,
    pointer: String,
    expression: String,
    resource: usize,
}

impl Spots {
    fn of(resource: &Value, definitions: &'static Definitions) -> Vec<Spot> {
        let base = resource["resourceType"].as_str().unwrap().to_owned();
        let mut spots = Self { definitions, found: Vec::new(), resources: 0 };
        spots.walk(resource, &Here { expression: base.clone(), base, path: String::new(), pointer: String::new(), resource: 0 });
        spots.found
    }

    fn walk(&mut self, value: &Value, here: &Here) {
        for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| *key != "resourceType" && !key.starts_with('_')) {
            let element = self.definitions.type_def(&here.base).unwrap().of_member(&here.path, key).unwrap();
            let name = element.path.rsplit('.').next().unwrap().trim_end_matches("[x]");
            let ty = element.types.split('|').find(|t| element.types == *t || key[name.len()..].eq_ignore_ascii_case(t)).unwrap();
            let expression = format!("{}.{name}", here.expression);
            self.visit(value, here, key, None, element, ty, expression.clone());
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                self.visit(item, here, key, Some(index), element, ty, format!("{expression}[{index}]"));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and what it is given is all that a spot has")]
    fn visit(&mut self, value: &Value, here: &Here, key: &str, index: Option<usize>, element: &'static Element, ty: &'static str, expression: String) {
        let (parent, parent_expression) = (here.pointer.clone(), here.expression.clone());
        let spot = Spot { parent, key: key.to_owned(), index, expression: expression.clone(), parent_expression, element, ty, resource: here.resource };
        let pointer = spot.pointer();
        self.found.push(spot);
        if !value.is_object() {
            return;
        }
        let (base, path) = match ty {
            "BackboneElement" | "Element" => (here.base.clone(), element.path.to_owned()),
            "Resource" => (value["resourceType"].as_str().unwrap().to_owned(), String::new()),
            _ if ty.starts_with('#') => (here.base.clone(), ty[1..].to_owned()),
            _ => (ty.to_owned(), String::new()),
        };
        self.resources += usize::from(ty == "Resource");
        let resource = if ty == "Resource" { self.resources } else { here.resource };
        self.walk(value, &Here { base, path, pointer, expression, resource });
    }
}

/// Breaks a resource at a spot. Returns where the validator has to see it, or `None` if it cannot be broken there like this.
type Break = fn(&mut Value, &Spot) -> Option<String>;

const BREAKS: &[(&str, Break)] = &[
    ("a member of another name", |all, spot| {
        let parent = all.pointer_mut(&spot.parent)?.as_object_mut()?;
        let value = parent.remove(&spot.key).filter(|_| spot.is_member())?;
        parent.insert(format!("{}Zz", spot.key), value);
        Some(format!("{}.{}Zz", spot.parent_expression, spot.key))
    }),
    ("a required member left out", |all, spot| {
        all.pointer_mut(&spot.parent)?.as_object_mut()?.remove(&spot.key).filter(|_| spot.element.min > 0)?;
        Some(spot.parent_expression.clone())
    }),
    ("null", |all, spot| replace(all, spot, |_| Some(Value::Null))),
    ("an empty object", |all, spot| replace(all, spot, |old| old.is_object().then(|| json!({})))),
    ("an empty array", |all, spot| replace(all, spot, |old| old.is_array().then(|| json!([])))),
    ("an empty string", |all, spot| replace(all, spot, |old| old.is_string().then(|| json!("")))),
    ("an array for one", |all, spot| replace(all, spot, |old| (spot.element.max == Some(1)).then(|| json!([old])))),
    ("one for an array", |all, spot| replace(all, spot, |old| old.get(0).cloned())),
    ("a number for a string", |all, spot| replace(all, spot, |old| old.is_string().then(|| json!(7)))),
    ("a string for an object", |all, spot| replace(all, spot, |old| old.is_object().then(|| json!("x")))),
    ("an object for a primitive", |all, spot| replace(all, spot, |old| (!old.is_object() && !old.is_array()).then(|| json!({"x": 1})))),
    ("another code", |all, spot| {
        let bound = spot.ty == "code" && spot.element.codes.is_some();
        replace(all, spot, |old| (bound && old.is_string()).then(|| json!("no-such-code")))
    }),
    ("another format", |all, spot| {
        replace(all, spot, |old| {
            let wrong = match spot.ty {
                _ if spot.key == "id" => json!("a b"),
                "date" | "dateTime" | "instant" | "time" => json!("2024-02-30T24:00:00Z"),
                "uri" | "url" | "canonical" | "oid" | "uuid" => json!("a b"),
                "code" | "base64Binary" => json!(" a"),
                "string" | "markdown" => json!("a\u{1}"),
                "xhtml" => json!("<div>"),
                "integer" | "unsignedInt" | "positiveInt" => json!(1.5),
                _ => return None,
            };
            (!old.is_array()).then_some(wrong)
        })
    }),
    ("a second form of a choice", |all, spot| {
        let other = spot.element.types.split('|').find(|t| *t != spot.ty).filter(|_| spot.is_member() && spot.element.path.ends_with("[x]"))?;
        let stem = spot.element.path.rsplit('.').next()?.trim_end_matches("[x]");
        let key = format!("{stem}{}{}", other[..1].to_uppercase(), &other[1..]);
        all.pointer_mut(&spot.parent)?.as_object_mut()?.insert(key, json!("x"));
        Some(spot.expression.clone())
    }),
    ("a sibling of nothing", |all, spot| {
        let is_primitive = !all.pointer(&spot.pointer())?.is_object() && spot.is_member() && spot.element.max == Some(1) && spot.key != "url";
        let root_or_no_id = spot.key != "id";
        all.pointer_mut(&spot.parent)?.as_object_mut()?.insert(format!("_{}", spot.key), json!({}));
        (is_primitive && root_or_no_id).then(|| spot.expression.clone())
    }),
    ("a reference to nothing contained", |all, spot| {
        let is_reference = spot.key == "reference" && spot.ty == "string";
        replace(all, spot, |_| is_reference.then(|| json!("#nowhere")))
    }),
];

fn replace(all: &mut Value, spot: &Spot, new: impl FnOnce(&Value) -> Option<Value>) -> Option<String> {
    let value = all.pointer_mut(&spot.pointer())?;
    *value = new(value)?;
    Some(spot.expression.clone())
}

/// The same numbers in every run: splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

fn resources() -> Vec<Value> {
    let div = "<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>";
    let extension = json!([{"url": "http://a", "valueQuantity": {"value": 1.0, "unit": "m"}}, {"url": "b", "extension": [{"url": "c", "valueCode": "x"}]}]);
    let patient = json!({
        "resourceType": "Patient", "id": "p", "meta": {"lastUpdated": "2020-01-01T00:00:00Z", "profile": ["http://a"], "tag": [{"system": "http://a", "code": "x"}]},
        "text": {"status": "generated", "div": div}, "extension": extension, "active": true, "gender": "male", "birthDate": "1970-01-02",
        "contained": [{"resourceType": "Practitioner", "id": "o", "name": [{"text": "O"}], "telecom": [{"system": "phone", "value": "1", "rank": 1}]}],
        "identifier": [{"use": "usual", "type": {"coding": [{"system": "http://a", "code": "x"}], "text": "t"}, "system": "urn:oid:1.2", "value": "7", "period": {"start": "2001"}}],
        "name": [{"use": "official", "family": "A", "given": ["B", "C"]}], "deceasedDateTime": "2019-01-01T10:00:00+01:00", "multipleBirthInteger": 2,
        "contact": [{"relationship": [{"text": "x"}], "name": {"text": "N"}, "gender": "female", "address": {"type": "both", "line": ["1", "2"]}}],
        "photo": [{"contentType": "image/png", "data": "QUJD", "url": "http://a/b"}], "generalPractitioner": [{"reference": "#o", "display": "d"}],
        "link": [{"other": {"reference": "Patient/2"}, "type": "refer"}]
    });
    let observation = json!({
        "resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "1-8", "userSelected": true}]},
        "subject": {"reference": "Patient/p"}, "effectivePeriod": {"start": "2020-01-01", "end": "2020-01-02"}, "issued": "2020-01-01T00:00:00.5Z",
        "component": [{"code": {"text": "x"}, "valueRange": {"low": {"value": 1}}, "referenceRange": [{"text": "r"}]}, {"code": {"text": "y"}, "valueTime": "10:00:00"}]
    });
    let questionnaire = json!({
        "resourceType": "Questionnaire", "url": "http://a", "status": "draft", "subjectType": ["Patient"],
        "item": [{"linkId": "1", "type": "group", "text": "t", "item": [{"linkId": "1.1", "type": "decimal", "required": false, "maxLength": 3}]}]
    });
    let parameters = json!({"resourceType": "Parameters", "parameter": [{"name": "a", "valueUri": "http://a"}, {"name": "b", "part": [{"name": "c", "resource": patient.clone()}]}]});
    let bundle = json!({
        "resourceType": "Bundle", "type": "transaction",
        "entry": [{"fullUrl": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520", "resource": patient.clone(), "request": {"method": "PUT", "url": "Patient/p"}}, {"resource": observation.clone(), "request": {"method": "POST", "url": "Observation"}}]
    });
    vec![patient, observation, questionnaire, parameters, bundle]
}

#[test]
fn what_is_broken_is_found_where_it_is() {
    let mut chance = Chance(7);
    let mut tried = vec![0; BREAKS.len()];
    for version in FhirVersion::ALL {
        let definitions = Definitions::of(version);
        for resource in resources() {
            assert_eq!(validate(&resource, definitions), [], "{version} {resource}");
            let spots = Spots::of(&resource, definitions);
            for _ in 0..2_000 {
                let (which, spot) = (chance.below(BREAKS.len()), &spots[chance.below(spots.len())]);
                let mut broken = resource.clone();
                let Some(expected) = BREAKS[which].1(&mut broken, spot) else { continue };
                tried[which] += 1;
                let issues = validate(&broken, definitions);
                assert!(issues.iter().any(|i| i.expression == expected), "{version}: {} at {expected}: {issues:#?}", BREAKS[which].0);
            }
        }
    }
    let rare: Vec<_> = BREAKS.iter().zip(&tried).filter(|(_, n)| **n < 30).map(|(b, n)| (b.0, n)).collect();
    assert!(rare.is_empty(), "{rare:?}");
}

#[test]
fn an_id_given_twice_is_found_in_the_second_place() {
    let mut chance = Chance(11);
    for resource in resources() {
        let definitions = Definitions::of(FhirVersion::R4);
        let spots = Spots::of(&resource, definitions);
        let is_element = |s: &&Spot| s.ty != "Resource" && resource.pointer(&s.pointer()).is_some_and(Value::is_object);
        let elements: Vec<&Spot> = spots.iter().filter(is_element).collect();
        for _ in 0..300 {
            let (first, second) = (chance.below(elements.len()), chance.below(elements.len()));
            if first < second {
                let (first, second) = (elements[first], elements[second]);
                let mut broken = resource.clone();
                broken.pointer_mut(&first.pointer()).unwrap()["id"] = json!("twice");
                broken.pointer_mut(&second.pointer()).unwrap()["id"] = json!("twice");
                let found: Vec<String> = validate(&broken, definitions).into_iter().map(|i| i.expression).collect();
                let expected = if first.resource == second.resource { vec![format!("{}.id", second.expression)] } else { vec![] };
                assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn anything_anywhere_is_judged() {
    let mut chance = Chance(13);
    let resources = resources();
    let bits = [json!(null), json!([]), json!({}), json!([[[]]]), json!(""), json!("#"), json!("ü"), json!(-1e300), json!({"": null}), json!({"_": {}})];
    for resource in &resources {
        let spots = Spots::of(resource, Definitions::of(FhirVersion::R4));
        for _ in 0..500 {
            let mut broken = resource.clone();
            for _ in 0..=chance.below(3) {
                let spot = &spots[chance.below(spots.len())];
                let bit = if chance.below(8) == 0 { resources[chance.below(resources.len())].clone() } else { bits[chance.below(bits.len())].clone() };
                let key = if chance.below(2) == 0 { spot.key.clone() } else { format!("_{}", spot.key) };
                if let Some(parent) = broken.pointer_mut(&spot.parent).and_then(Value::as_object_mut) {
                    parent.insert(key, bit);
                }
            }
            for version in FhirVersion::ALL {
                _ = validate(&broken, Definitions::of(version));
            }
        }
    }
}
