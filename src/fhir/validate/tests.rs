//! One bad resource for each rule, and what is said of it.

use serde_json::Value;

use super::super::{Definitions, FhirVersion, json};
use super::*;

fn said_of(version: FhirVersion, text: &str) -> String {
    let value = json::parse(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {failure}"));
    let issues = validate(&value, Definitions::of(version));
    let lines = issues.iter().map(|i| {
        let warning = if i.severity == Severity::Warning { "warning " } else { "" };
        format!("{warning}{} {}: {}", i.code, i.expression, i.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Checks pairs of a resource's members and what is said of it.
fn check(version: FhirVersion, type_name: &str, cases: &[(&str, &str)]) {
    for (members, expected) in cases {
        assert_eq!(said_of(version, &format!("{{\"resourceType\":\"{type_name}\",{members}}}")), *expected, "{members}");
    }
}

fn patient(cases: &[(&str, &str)]) {
    check(FhirVersion::R4, "Patient", cases);
}

#[test]
fn what_is_right_passes() {
    let div = "<div xmlns='http://www.w3.org/1999/xhtml'>a<br/><!-- > --> &lt; <b title='>'>c</b><![CDATA[<]]></div>";
    patient(&[
        (&format!(r#""id":"1","meta":{{"lastUpdated":"2015-02-07T13:28:17.239+02:00"}},"text":{{"status":"generated","div":"{div}"}}"#), ""),
        (r#""_birthDate":{"extension":[{"url":"http://a","valueCode":"unknown"}]}"#, ""),
        (r#""birthDate":"2024-02-29","_birthDate":{"id":"a"}"#, ""),
        (r#""name":[{"given":["A",null],"_given":[null,{"extension":[{"url":"u","valueString":"x"}]}]}]"#, ""),
        (r#""extension":[{"url":"u","extension":[{"url":"v","valueInteger":1}]}],"multipleBirthInteger":2"#, ""),
        (r##""contained":[{"resourceType":"Organization","id":"o","partOf":{"reference":"#"}}],"managingOrganization":{"reference":"#o"}"##, ""),
        (r#""photo":[{"data":" QUJD\nRA== "}],"deceasedDateTime":"2016-12-31T23:59:60Z""#, ""),
    ]);
}

#[test]
fn names() {
    patient(&[
        (r#""nmae":[]"#, "structure Patient.nmae: unknown element 'nmae' in Patient; did you mean 'name'?"),
        (r#""contact":[{"zzzzzzz":1}]"#, "structure Patient.contact[0].zzzzzzz: unknown element 'zzzzzzz' in Patient.contact"),
        (r#""a b":1"#, "structure Patient.`a b`: unknown element 'a b' in Patient"),
        (r#""_name":[{}]"#, "structure Patient._name: '_name' is unknown: 'name' in Patient is no primitive element that could have one"),
        (r#""fhir_comments":["x"]"#, "structure Patient.fhir_comments: 'fhir_comments' was for comments before STU3; comments are not allowed"),
        (
            r#""deceasedString":"x""#,
            "structure Patient.deceasedString: 'deceasedString' is no form of deceased[x] in Patient; accepted are deceasedBoolean, deceasedDateTime",
        ),
        (
            r#""deceasedBolean":true"#,
            "structure Patient.deceasedBolean: 'deceasedBolean' is no form of deceased[x] in Patient; did you mean 'deceasedBoolean'?",
        ),
        (r#""deceased":true"#, "structure Patient.deceased: 'deceased' is no form of deceased[x] in Patient; accepted are deceasedBoolean, deceasedDateTime"),
        (
            r#""deceasedBoolean":true,"deceasedDateTime":"2020""#,
            "structure Patient.deceased: deceased[x] has one type, but both 'deceasedBoolean' and 'deceasedDateTime' are there",
        ),
        (r#""name":[{"resourceType":"x"}]"#, "structure Patient.name[0].resourceType: unknown element 'resourceType' in HumanName"),
    ]);
}

#[test]
fn shapes() {
    patient(&[
        (r#""active":"true""#, "structure Patient.active: 'true' is a string, but a value of type boolean is a boolean in JSON"),
        (r#""birthDate":1970"#, "structure Patient.birthDate: 1970 is a number, but a value of type date is a string in JSON"),
        (r#""birthDate":{"x":1}"#, "structure Patient.birthDate: this is an object, but a value of type date is a string in JSON"),
        (r#""multipleBirthInteger":"1""#, "structure Patient.multipleBirth: '1' is a string, but a value of type integer is a number in JSON"),
        (r#""maritalStatus":"M""#, "structure Patient.maritalStatus: a value of type CodeableConcept is an object in JSON, but this is a string"),
        (r#""contact":[[]]"#, "structure Patient.contact[0]: a value of type Patient.contact is an object in JSON, but this is an array"),
        (r#""name":{"family":"A"}"#, "structure Patient.name: 'name' repeats and is an array in JSON, but this is an object"),
        (r#""birthDate":["1970"]"#, "structure Patient.birthDate: 'birthDate' is at most one here, but this is an array"),
        (r#""name":[]"#, "structure Patient.name: is an empty array; leave out what has no items"),
        (r#""name":[{}]"#, "structure Patient.name[0]: is an empty object; leave out what has no content"),
        (r#""active":null"#, "structure Patient.active: is null; leave out what has no value"),
        (r#""name":[null]"#, "structure Patient.name[0]: is null; leave out what has no value"),
        (r#""name":null"#, "structure Patient.name: is null; leave out what has no value"),
        (r#""name":[{"given":["A",""]}]"#, "value Patient.name[0].given[1]: is an empty string; leave out what has no value"),
        (r#""name":[{"id":"a"}]"#, "invariant Patient.name[0]: has an id and nothing else; an element has a value or children"),
    ]);
}

#[test]
fn siblings() {
    patient(&[
        (r#""name":[{"given":["A",null]}]"#, "structure Patient.name[0].given[1]: is null; leave out what has no value"),
        (r#""name":[{"given":["A",null],"_given":[null,null]}]"#, "structure Patient.name[0].given[1]: is null; leave out what has no value"),
        (
            r#""name":[{"given":["A"],"_given":[{"id":"x"},{"extension":[{"url":"u","valueString":"x"}]}]}]"#,
            "structure Patient.name[0].given: '_given' has 2 entries beside 1 values; null stands for what an entry lacks",
        ),
        (r#""name":[{"_given":[null]}]"#, "structure Patient.name[0].given[0]: has neither value nor extension"),
        (r#""_birthDate":{"id":"x"}"#, "invariant Patient.birthDate: has neither value nor extension"),
        (r#""birthDate":"1970","_birthDate":{}"#, "structure Patient.birthDate: is an empty object; leave out what has no content"),
        (
            r#""birthDate":"1970","_birthDate":[{"id":"x"}]"#,
            "structure Patient.birthDate: '_birthDate' is one object here, as its element is at most one, but this is an array",
        ),
        (r#""birthDate":"1970","_birthDate":null"#, "structure Patient.birthDate: '_birthDate' is null; leave out what has no value"),
        (r#""birthDate":"1970","_birthDate":"x""#, "structure Patient.birthDate: id and extensions of a primitive are an object, but this is a string"),
        (r#""name":[{"given":["A"],"_given":{"id":"x"}}]"#, "structure Patient.name[0].given: '_given' repeats and is an array in JSON, but this is an object"),
        (r#""birthDate":"1970","_birthDate":{"value":1,"id":"x"}"#, "structure Patient.birthDate.value: unknown element 'value' in Element"),
    ]);
}

#[test]
fn cardinalities() {
    check(
        FhirVersion::R4,
        "Observation",
        &[
            (r#""code":{"text":"x"}"#, "required Observation: Observation requires status, which is missing"),
            (
                r#""status":"final","code":{"text":"x"},"component":[{"valueString":"x"}]"#,
                "required Observation.component[0]: Observation.component requires code, which is missing",
            ),
        ],
    );
    check(
        FhirVersion::R4,
        "MedicationRequest",
        &[(
            r#""status":"active","intent":"order","subject":{"display":"x"}"#,
            "required MedicationRequest: MedicationRequest requires medication[x], which is missing",
        )],
    );
    // A reason for its absence is enough of a status.
    let absent = r#""_status":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]},"code":{"text":"x"}"#;
    check(FhirVersion::R4, "Observation", &[(absent, "")]);
    check(
        FhirVersion::R5,
        "Questionnaire",
        &[(
            r#""status":"draft","item":[{"linkId":"1","type":"group","item":[{"type":"string"}]}]"#,
            "required Questionnaire.item[0].item[0]: Questionnaire.item requires linkId, which is missing",
        )],
    );
}

#[test]
fn bindings() {
    patient(&[
        (r#""gender":"femal""#, "code-invalid Patient.gender: 'femal' is not in the required value set administrative-gender; did you mean 'female'?"),
        (
            r#""gender":"w""#,
            "code-invalid Patient.gender: 'w' is not in the required value set administrative-gender; accepted are male, female, other, unknown",
        ),
    ]);
    let system = "http://terminology.hl7.org/CodeSystem/condition-clinical";
    let condition = |coding: &str, expected: &str| {
        let members = format!(r#""subject":{{"display":"x"}},"clinicalStatus":{{"text":"t","coding":[{coding}]}}"#);
        check(FhirVersion::R4, "Condition", &[(members.as_str(), expected)]);
    };
    condition(&format!(r#"{{"system":"http://own","code":"x"}},{{"system":"{system}","code":"active"}}"#), "");
    condition(
        &format!(r#"{{"system":"{system}","code":"actve"}}"#),
        "code-invalid Condition.clinicalStatus: 'http://terminology.hl7.org/CodeSystem/condition-clinical|actve' is not in the required value set condition-clinical; did you mean 'active'?",
    );
    condition(
        r#"{"code":"active"}"#,
        "code-invalid Condition.clinicalStatus: 'active' without a system is not in the required value set condition-clinical; the system of 'active' is http://terminology.hl7.org/CodeSystem/condition-clinical",
    );
    check(FhirVersion::R4, "Condition", &[(r#""subject":{"display":"x"},"clinicalStatus":{"text":"t"}"#, "")]);
    let many =
        r#""url":"u","version":"1","name":"N","status":"draft","kind":"resource","abstract":false,"type":"T","contextInvariant":["x"],"fhirVersion":"9""#;
    let said = said_of(FhirVersion::R4, &format!(r#"{{"resourceType":"StructureDefinition",{many}}}"#));
    assert_eq!(
        said,
        "code-invalid StructureDefinition.fhirVersion: '9' is not in the required value set FHIR-version; accepted are 0.01, 0.05, 0.06, 0.11, 0.0.80, 0.0.81, ..."
    );
}

/// Value sets that are all of a system: a grammar or a standard knows its codes.
#[test]
fn bindings_to_all_of_a_system() {
    let attachment = |code: &str| said_of(FhirVersion::R4, &format!(r#"{{"resourceType":"Patient","photo":[{{"contentType":"{code}"}}]}}"#));
    for good in ["image/png", "text/plain; charset=utf-8", "application/vnd.api+json", "application/fhir+xml;fhirVersion=4.0"] {
        assert_eq!(attachment(good), "", "{good}");
    }
    for bad in ["png", "*", "image/*", "image/", "image/png/x", "a b/c"] {
        let expected = format!(
            "code-invalid Patient.photo[0].contentType: '{bad}' is not in the required value set mimetypes; a media type is written like application/fhir+json"
        );
        assert_eq!(attachment(bad), expected);
    }
    let money = |code: &str| {
        said_of(
            FhirVersion::R4,
            &format!(r#"{{"resourceType":"Account","status":"active","extension":[{{"url":"u","valueMoney":{{"value":1,"currency":"{code}"}}}}]}}"#),
        )
    };
    assert_eq!(money("CHF"), "");
    for bad in ["chf", "ABC", "*"] {
        assert!(
            money(bad).ends_with(&format!("currency: '{bad}' is not in the required value set currencies; a currency is one of ISO 4217, such as EUR")),
            "{bad}"
        );
    }
    let language = |version, code: &str| said_of(version, &format!(r#"{{"resourceType":"Patient","language":"{code}"}}"#));
    for good in ["de", "en-US", "zh-Hant-TW", "x-own", "de-CH-1996"] {
        assert_eq!(language(FhirVersion::R5, good), "", "{good}");
    }
    for bad in ["english_US", "d", "no-such-code"] {
        assert!(language(FhirVersion::R5, bad).contains("all-languages; a language is written like de or en-US (BCP 47)"), "{bad}");
        assert_eq!(language(FhirVersion::R4, bad), "", "only preferred there");
    }
    let formats = |code: &str| {
        said_of(
            FhirVersion::R4,
            &format!(
                r#"{{"resourceType":"CapabilityStatement","status":"active","date":"2024","kind":"requirements","fhirVersion":"4.0.1","description":"x","format":["{code}"]}}"#
            ),
        )
    };
    for good in ["json", "xml", "ttl", "application/fhir+json"] {
        assert_eq!(formats(good), "", "{good}");
    }
    assert!(formats("jsn").contains("formats"));
}

#[test]
fn extensions() {
    patient(&[
        (r#""extension":[{"valueString":"x"}]"#, "required Patient.extension[0]: Extension requires url, which is missing"),
        (r#""extension":[{"url":"u"}]"#, "invariant Patient.extension[0]: an extension has a value or extensions, but this has neither"),
        (
            r#""extension":[{"url":"u","valueCode":"x","extension":[{"url":"v","valueCode":"x"}]}]"#,
            "invariant Patient.extension[0]: an extension has a value or extensions, but this has both valueCode and extension",
        ),
        (
            r#""extension":[{"url":"u","valueCod":"x"}]"#,
            "structure Patient.extension[0].valueCod: 'valueCod' is no form of value[x] in Extension; did you mean 'valueCode'?",
        ),
        (
            r#""extension":[{"url":"u","_url":{"id":"x"},"valueCode":"x"}]"#,
            "structure Patient.extension[0]._url: '_url' is unknown: 'url' in Extension is no primitive element that could have one",
        ),
    ]);
}

#[test]
fn references_and_ids() {
    patient(&[
        (
            r#""generalPractitioner":[{"type":"Organization"}]"#,
            "invariant Patient.generalPractitioner[0]: a Reference has a reference, an identifier, a display or an extension, but this has none of them",
        ),
        (
            r##""managingOrganization":{"reference":"#x"}"##,
            "invariant Patient.managingOrganization.reference: '#x' is no contained resource; there is no contained resource",
        ),
        (
            r##""contained":[{"resourceType":"Organization","id":"o","partOf":{"reference":"#practitioner"}}]"##,
            "invariant Patient.contained[0].partOf.reference: '#practitioner' is no contained resource; contained are 'o'",
        ),
        (
            r#""name":[{"id":"a","text":"x"}],"_birthDate":{"id":"a"},"birthDate":"1970""#,
            "invariant Patient.birthDate.id: the element id 'a' is used twice in the resource",
        ),
        (
            r#""contained":[{"resourceType":"Basic","id":"b","code":{"text":"x"}},{"resourceType":"Basic","id":"b","code":{"text":"x"}}]"#,
            "invariant Patient.contained[1].id: two contained resources have the id 'b'",
        ),
        (
            r#""contained":[{"resourceType":"Patient","id":"b","contained":[{"resourceType":"Patient","id":"c"}]}]"#,
            "invariant Patient.contained[0].contained: a contained resource contains none itself; all are in the outer one",
        ),
        // Ids of elements are apart in what is contained.
        (r#""contained":[{"resourceType":"Patient","id":"b","name":[{"id":"a","text":"x"}]}],"name":[{"id":"a","text":"x"}]"#, ""),
    ]);
    check(
        FhirVersion::R4,
        "Questionnaire",
        &[(
            r##""status":"draft","item":[{"linkId":"1","type":"choice","answerValueSet":"#v"}]"##,
            "invariant Questionnaire.item[0].answerValueSet: '#v' is no contained resource; there is no contained resource",
        )],
    );
}

#[test]
fn resources_in_resources() {
    for (text, expected) in [
        ("[]", "structure : a resource is a JSON object, but this is an array"),
        ("{}", "required resourceType: resourceType is missing; it names the type, for example \"resourceType\":\"Patient\""),
        (r#"{"resourceType":1}"#, "structure resourceType: resourceType is a string, but this is a number"),
        (r#"{"resourceType":"Pateint"}"#, "structure resourceType: unknown resource type 'Pateint' in FHIR R4; did you mean 'Patient'?"),
        (r#"{"resourceType":"DomainResource"}"#, "structure resourceType: resource type 'DomainResource' is abstract in FHIR R4"),
        (
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Patient","nmae":1}}]}"#,
            "structure Bundle.entry[0].resource.nmae: unknown element 'nmae' in Patient; did you mean 'name'?",
        ),
        (
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"id":"x"}}]}"#,
            "required Bundle.entry[0].resource: resourceType is missing; it names the type, for example \"resourceType\":\"Patient\"",
        ),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"a","part":[{"name":"b","resource":{"resourceType":"HumanName"}}]}]}"#,
            "structure Parameters.parameter[0].part[0].resource: unknown resource type 'HumanName' in FHIR R4",
        ),
        (
            r#"{"resourceType":"Patient","contained":[{"resourceType":"Patient","id":"a","active":1}]}"#,
            "structure Patient.contained[0].active: 1 is a number, but a value of type boolean is a boolean in JSON",
        ),
        (
            r##"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Patient","managingOrganization":{"reference":"#o"},"contained":[{"resourceType":"Organization","id":"o","name":"x"}]}},{"resource":{"resourceType":"Patient","managingOrganization":{"reference":"#o"}}}]}"##,
            "invariant Bundle.entry[1].resource.managingOrganization.reference: '#o' is no contained resource; there is no contained resource",
        ),
    ] {
        assert_eq!(said_of(FhirVersion::R4, text), expected, "{text}");
    }
}

#[test]
fn issues_and_nesting_have_limits() {
    let many = format!(r#"{{"resourceType":"Patient","name":[{}]}}"#, vec![r#"{"x":1}"#; 300].join(","));
    let value: Value = serde_json::from_str(&many).unwrap_or_default();
    assert_eq!(validate(&value, Definitions::of(FhirVersion::R4)).len(), MAX_ISSUES);
    let many: Value = (0..300).map(|n| (format!("x{n}"), Value::Null)).chain([("resourceType".to_owned(), "Patient".into())]).collect();
    assert_eq!(validate(&many, Definitions::of(FhirVersion::R4)).len(), MAX_ISSUES);
    let mut deep = serde_json::json!({"url": "u", "valueCode": "x"});
    for _ in 0..300 {
        deep = serde_json::json!({"url": "u", "extension": [deep]});
    }
    let value = serde_json::json!({"resourceType": "Patient", "extension": [deep]});
    let said: Vec<String> = validate(&value, Definitions::of(FhirVersion::R4)).into_iter().map(|i| i.message).collect();
    assert_eq!(said, ["nested deeper than 100 levels"]);
}

#[test]
fn versions_differ() {
    check(FhirVersion::Stu3, "Patient", &[(r#""animal":{"species":{"text":"x"}}"#, "")]);
    patient(&[(r#""animal":{"species":{"text":"x"}}"#, "structure Patient.animal: unknown element 'animal' in Patient")]);
    let exponent = r#""status":"final","code":{"text":"x"},"valueQuantity":{"value":1e3}"#;
    check(FhirVersion::R4, "Observation", &[(exponent, "")]);
    check(FhirVersion::Stu3, "Observation", &[(exponent, "value Observation.value.value: 1e+3 is no decimal: exponents came with R4")]);
}

#[test]
fn every_shape_has_members() {
    for version in FhirVersion::ALL {
        let schema = schema::Schema::of(Definitions::of(version));
        let empty: Vec<String> = schema.shapes().filter(|s| s.keys().next().is_none()).map(schema::Shape::title).collect();
        assert!(empty.is_empty(), "{version}: {empty:?}");
        assert!(schema.shapes().count() > 400, "{version}");
    }
}
