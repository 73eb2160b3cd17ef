//! Both directions together.

use super::super::{Definitions, FhirVersion, json};
use super::{from_xml, read, to_xml};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
const DIV: &str = "<div xmlns=\"http://www.w3.org/1999/xhtml\"><!-- c --><p title='a>b'>x &amp; y&#160;<br/>\n</p></div>";

fn xml(json: &str) -> String {
    let written = to_xml(json, Definitions::of(FhirVersion::R4)).unwrap_or_else(|f| f.to_string());
    written.strip_prefix(HEAD).map_or(written.clone(), |rest| rest.replace(" xmlns=\"http://hl7.org/fhir\"", ""))
}

fn back(xml: &str) -> String {
    from_xml(xml.as_bytes(), FhirVersion::R4).unwrap_or_else(|f| f.to_string())
}

/// What becomes of the members of a Patient on the way to XML and back.
fn patient(members: &str) -> String {
    let written = to_xml(&format!("{{\"resourceType\":\"Patient\",{members}}}"), Definitions::of(FhirVersion::R4)).unwrap_or_else(|f| f.to_string());
    let read = back(&written);
    read.strip_prefix("{\"resourceType\":\"Patient\",").and_then(|s| s.strip_suffix('}')).unwrap_or(&read).to_owned()
}

/// What becomes of the elements in a Patient.
fn elements(inner: &str) -> String {
    back(&format!("<Patient xmlns=\"http://hl7.org/fhir\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{inner}</Patient>"))
}

#[test]
fn elements_come_in_the_order_of_the_specification() {
    insta::assert_snapshot!(
        xml(r#"{"birthDate":"1970","_birthDate":{"extension":[{"valueDecimal":1.00,"url":"u"}],"id":"b"},"zz":1,"name":[{"given":["A",null,"C"],"_given":[null,{"id":"g"}],"family":"F","id":"n"}],"id":"1","active":true,"deceasedDateTime":"2000","resourceType":"Patient","contained":[{"id":"c","resourceType":"Basic"}]}"#),
        @r#"<Patient><id value="1"/><contained><Basic><id value="c"/></Basic></contained><active value="true"/><name id="n"><family value="F"/><given value="A"/><given id="g"/><given value="C"/></name><birthDate id="b" value="1970"><extension url="u"><valueDecimal value="1.00"/></extension></birthDate><deceasedDateTime value="2000"/><zz value="1"/></Patient>"#
    );
}

#[test]
fn elements_out_of_order_are_found() {
    let found = |inner: &str| {
        let text = format!("<Patient xmlns=\"http://hl7.org/fhir\">{inner}</Patient>");
        let issues = read(text.as_bytes(), FhirVersion::R4).map(|(_, issues)| issues).unwrap_or_default();
        issues.into_iter().map(|issue| issue.expression).collect::<Vec<_>>().join(" ")
    };
    for (inner, expected) in [
        (r#"<id value="1"/><active value="true"/><name><family value="F"/></name>"#, ""),
        (r#"<active value="true"/><id value="1"/>"#, "Patient.id"),
        (r#"<name/><telecom/><name/><gender value="male"/>"#, "Patient.name[1]"),
        (r#"<name><given value="a"/></name><name><given value="a"/><family value="f"/></name>"#, "Patient.name[1].family"),
        (r#"<deceasedBoolean value="true"/><birthDate value="2000"/>"#, "Patient.birthDate"),
        (r#"<multipleBirthInteger value="1"/><deceasedDateTime value="2000"/><birthDate value="2000"/>"#, "Patient.deceased Patient.birthDate"),
        ("<photo/><deceasedQuantity/>", "Patient.deceased"),
        (r#"<contained><Basic><subject/><id value="c"/></Basic></contained>"#, "Patient.contained[0].id"),
        (r#"<zz value="1"/><id value="1"/><zz value="2"/><active value="true"/>"#, ""),
        (
            r#"<birthDate value="2000"><extension url="u"><valueString value="x"/><extension url="v"/></extension></birthDate>"#,
            "Patient.birthDate.extension[0].extension[0]",
        ),
    ] {
        assert_eq!(found(inner), expected, "{inner}");
    }
}

#[test]
fn digits_white_space_and_quotes_survive() {
    for members in [
        r#""multipleBirthInteger":1e3"#,
        r#""extension":[{"url":"u","valueDecimal":-0.10},{"url":"u","valueQuantity":{"value":1.00}}]"#,
        r#""active":false,"gender":" a\tb\r\nc\n<&>\"' ü𝄞 \\ ""#,
        r#""_birthDate":{"id":"x"},"deceasedBoolean":true,"_deceasedBoolean":{"extension":[{"url":"u"}]}"#,
        r#""name":[{"given":["A",null],"_given":[{"id":"1"},{"id":"2"}]},{"family":"","_given":[null,{"id":"2"}]}]"#,
        r#""contact":[{"id":"1","name":{"text":"x"}}],"link":[{"other":{"reference":"P/1"},"type":"refer"}]"#,
    ] {
        assert_eq!(patient(members), members);
    }
}

#[test]
fn narratives_are_copied() {
    let members = format!(r#""text":{{"status":"generated","div":{}}}"#, serde_json::Value::from(DIV));
    assert_eq!(patient(&members), members);
    let div = |text: &str| xml(&format!(r#"{{"resourceType":"Patient","text":{{"div":{}}}}}"#, serde_json::Value::from(text)));
    assert_eq!(div(" <div>x</div>\n"), "<Patient><text><div xmlns=\"http://www.w3.org/1999/xhtml\">x</div></text></Patient>");
    assert_eq!(div("<div/>"), "<Patient><text><div xmlns=\"http://www.w3.org/1999/xhtml\"/></text></Patient>");
    let wrong =
        ["", "x", "<p/>", "<div>", "<div/><div/>", "<div>&nbsp;</div>", "<div><p></div>", "<!-- --><div/>", "<div xmlns=''/>", "<x:div/>", "<div a=b/>"];
    insta::assert_snapshot!(wrong.map(div).join("\n"), @r#"
    Patient.text.div cannot be said in XML: it does not begin with <div; ask for JSON
    Patient.text.div cannot be said in XML: it does not begin with <div; ask for JSON
    Patient.text.div cannot be said in XML: its element is 'p', not div; ask for JSON
    Patient.text.div cannot be said in XML: malformed XML: the narrative's 'div' is not closed at line 1 column 6; ask for JSON
    Patient.text.div cannot be said in XML: something follows after its div; ask for JSON
    Patient.text.div cannot be said in XML: malformed XML: entity 'nbsp' is not defined; write the character itself, or its number such as &#160; at line 1 column 6; ask for JSON
    Patient.text.div cannot be said in XML: malformed XML: ill-formed document: expected `</p>`, but `</div>` was found at line 1 column 9; ask for JSON
    Patient.text.div cannot be said in XML: it does not begin with <div; ask for JSON
    Patient.text.div cannot be said in XML: its div is in no namespace; ask for JSON
    Patient.text.div cannot be said in XML: malformed XML: the prefix 'x' is declared nowhere at line 1 column 1; ask for JSON
    Patient.text.div cannot be said in XML: malformed XML: an attribute's value must be in quotes at line 1 column 8; ask for JSON
    "#);
}

#[test]
fn unknown_content_is_kept() {
    for members in [
        r#""_g":"x","a":"1","b":true,"c":{"id":"i","extension":[{"url":"u"}],"d":["x","y"]},"e":null,"_f":{"id":"1"}"#,
        r#""name":["x",{"family":"y"}],"deceasedQuantity":{"value":1.0},"h":"x","_h":{"id":"1"}"#,
        r#""extension":[{"id":null,"_url":{"a":"b"}}],"active":"yes","gender":["a","b"],"multipleBirthInteger":"01""#,
        r#""contained":[{"resourceType":"Foo","bar":["1","2"]},{"id":"x"},{}]"#,
    ] {
        assert_eq!(patient(members), members);
    }
    // What comes back in another form.
    for (members, expected) in [
        (r#""n":12,"one":["x"],"deep":[["a"],[["b"],"c"]],"empty":[]"#, r#""deep":["a","b","c"],"n":"12","one":"x""#),
        (r#""maritalStatus":null,"link":{"type":"x"},"id":7"#, r#""id":"7","maritalStatus":{},"link":[{"type":"x"}]"#),
        (r#""birthDate":{"x":"y"}"#, r#""_birthDate":{"x":"y"}"#),
    ] {
        assert_eq!(patient(members), expected);
    }
}

#[test]
fn only_a_plus_that_its_type_allows_is_left_out() {
    for (inner, expected) in [
        (r#"<multipleBirthInteger value="+5"/>"#, r#""multipleBirthInteger":5"#),
        (r#"<multipleBirthInteger value="+0"/>"#, r#""multipleBirthInteger":"+0""#),
        (r#"<multipleBirthInteger value="+-5"/>"#, r#""multipleBirthInteger":"+-5""#),
        (r#"<telecom><rank value="+1"/></telecom>"#, r#""telecom":[{"rank":1}]"#),
        (r#"<extension url="u"><valueDecimal value="+1.0"/></extension>"#, r#""extension":[{"url":"u","valueDecimal":"+1.0"}]"#),
        (r#"<extension url="u"><valueUnsignedInt value="+5"/></extension>"#, r#""extension":[{"url":"u","valueUnsignedInt":"+5"}]"#),
    ] {
        assert_eq!(elements(inner), format!("{{\"resourceType\":\"Patient\",{expected}}}"));
    }
}

#[test]
fn what_xml_cannot_say_is_refused_by_name() {
    let refused = |members: &str| {
        to_xml(&format!("{{\"resourceType\":\"Patient\",{members}}}"), Definitions::of(FhirVersion::R4)).map_err(|f| f.diagnostics).unwrap_err()
    };
    let refusals = [
        r#""name":[{},{"given":["a","\u0000"]}]"#,
        r#""a b":1"#,
        r#""x":{"y":{"":1}}"#,
        r#""text":{"div":5}"#,
        r#""contained":[{"resourceType":"a<b"}]"#,
        r#""_birthDate":{"id":"\uffff"}"#,
        r#""name":[{"given":[["a"]]}]"#,
        r#""photo":[]"#,
    ];
    insta::assert_snapshot!(refusals.map(refused).join("\n"), @"
    Patient.name[1].given[1] cannot be said in XML: it holds the character U+0000; ask for JSON
    Patient.a b cannot be said in XML: its name is no name of XML; ask for JSON
    Patient.x.y. cannot be said in XML: its name is no name of XML; ask for JSON
    Patient.text.div cannot be said in XML: it is no string; ask for JSON
    Patient.contained[0] cannot be said in XML: its resourceType is no name of XML; ask for JSON
    Patient.birthDate.id cannot be said in XML: it holds the character U+FFFF; ask for JSON
    Patient.name[0].given cannot be said in XML: it has an array within an array; ask for JSON
    Patient.photo cannot be said in XML: it is an empty array; ask for JSON
    ");
    assert_eq!(
        to_xml("[]", Definitions::of(FhirVersion::R4)).map_err(|f| f.diagnostics).unwrap_err(),
        "a FHIR resource is a JSON object with the member resourceType"
    );
}

#[test]
fn any_way_of_writing_xml_is_read() {
    let json = r#"{"resourceType":"Patient","text":{"div":"<h:div xmlns:h=\"http://www.w3.org/1999/xhtml\">x</h:div>"},"active":true,"gender":"a  b\n<"}"#;
    let text = "\u{feff}<?xml version='1.0' encoding=\"us-ascii\"?>\n<!-- c --><?pi?>\n<f:Patient xmlns:f='http://hl7.org/fhir' xmlns:h='http://www.w3.org/1999/xhtml'\n\
        xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:schemaLocation='a b' >\n<f:text><h:div>x</h:div></f:text ><f:active value = 'true'></f:active>\
        <!-- c --><f:gender value=\"a\r\n\tb&#xA;&lt;\"/></f:Patient>\n<!-- c -->\n";
    assert_eq!(back(text), json);
    assert_eq!(back("<Foo xmlns='http://hl7.org/fhir'/>"), r#"{"resourceType":"Foo"}"#);
}

#[test]
fn documents_that_are_no_fhir_are_refused_with_their_place() {
    let lol = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]>\n<Patient xmlns=\"http://hl7.org/fhir\"/>";
    let documents = [
        "",
        "x",
        lol,
        "<Patient/>",
        "<Patient xmlns='urn:x'/>",
        "<?xml version='1.0' encoding='latin1'?><a/>",
        " <?xml version='1.0'?><a/>",
        "{}",
        "<a xmlns='http://hl7.org/fhir'/><b/>",
    ];
    insta::assert_snapshot!(documents.map(back).join("\n"), @r#"
    malformed XML: there is no element; a FHIR resource in XML was expected at line 1 column 1
    malformed XML: there is text outside of the root element at line 1 column 1
    malformed XML: a document type (DOCTYPE) is not accepted at line 1 column 1
    malformed XML: the root element 'Patient' is in no namespace; expected xmlns="http://hl7.org/fhir" at line 1 column 1
    malformed XML: the root element 'Patient' is in the namespace 'urn:x'; expected xmlns="http://hl7.org/fhir" at line 1 column 1
    malformed XML: the encoding 'latin1' is not understood; send UTF-8 at line 1 column 1
    malformed XML: an XML declaration must be the first of all at line 1 column 2
    malformed XML: there is text outside of the root element at line 1 column 1
    malformed XML: a document has one root element, and this is a second one at line 1 column 33
    "#);
}

/// Each is one mistake in a Patient.
const MISTAKES: &[&str] = &[
    "\n  text",
    "<![CDATA[x]]>",
    "<active value='&lol;'/>",
    "<active value='a' valeu='b'/>",
    "<active value='a' value='b'/>",
    "<active value=true/>",
    "<active value='<'/>",
    "<active",
    "<active>",
    "<a></b>",
    "<a id='1'url='2'/>",
    "<a b:c='1'/>",
    "<x:y/>",
    "<1a/>",
    "<a value='&#0;'/>",
    "<a value='&amp'/>",
    "<p xmlns='urn:x'/>",
    "<a xmlns=''/>",
    "<resourceType value='x'/>",
    "<text><div>&nbsp;</div></text>",
    "<text><div xmlns:s='s'><s:p/><t:p/></div></text>",
    "<a/>\u{1}",
    "<contained><Basic id='1'/></contained>",
    "<birthDate id='1'/><_birthDate value='x'/>",
    "<text><div xmlns='urn:x'/></text>",
    "<text><div value='x'/></text>",
    "<text><div xmlns=''/></text>",
    "]]>",
    "<!-- -- -->",
    "<?xml?>",
    "<active xsi:nil='true' xml:lang='en'/>",
];

#[test]
fn mistakes_are_refused_with_their_place() {
    let found: Vec<String> = MISTAKES.iter().map(|text| elements(text)).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    malformed XML: there is text in 'Patient'; values of FHIR elements are in their attribute value at line 2 column 3
    malformed XML: there is text in 'Patient'; values of FHIR elements are in their attribute value at line 1 column 92
    malformed XML: entity 'lol' is not defined; write the character itself, or its number such as &#160; at line 1 column 107
    malformed XML: the attribute 'valeu' of 'active' is not accepted; FHIR has the attributes value, id and url at line 1 column 110
    malformed XML: an attribute is there twice at line 1 column 110
    malformed XML: an attribute's value must be in quotes at line 1 column 106
    malformed XML: '<' in an attribute's value must be written &lt; at line 1 column 107
    malformed XML: 'active</Patient' is no name of an element at line 1 column 92
    malformed XML: ill-formed document: expected `</active>`, but `</Patient>` was found at line 1 column 100
    malformed XML: ill-formed document: expected `</a>`, but `</b>` was found at line 1 column 95
    malformed XML: white space is missing before an attribute at line 1 column 101
    malformed XML: the prefix 'b' is declared nowhere at line 1 column 95
    malformed XML: the prefix 'x' is declared nowhere at line 1 column 92
    malformed XML: '1a' is no name of an element at line 1 column 92
    malformed XML: '&#0;' is no character of XML at line 1 column 102
    malformed XML: '&' that begins no reference must be written &amp; at line 1 column 102
    malformed XML: the element 'p' is in the namespace 'urn:x'; expected xmlns="http://hl7.org/fhir" at line 1 column 92
    malformed XML: the element 'a' is in no namespace; expected xmlns="http://hl7.org/fhir" at line 1 column 92
    malformed XML: 'resourceType' is the name of the element itself in XML at line 1 column 92
    malformed XML: entity 'nbsp' is not defined; write the character itself, or its number such as &#160; at line 1 column 103
    malformed XML: the prefix 't' is declared nowhere at line 1 column 121
    malformed XML: the character U+0001 cannot be in XML at line 1 column 96
    malformed XML: the resource 'Basic' has an attribute, but a resource's id and all else are elements in it at line 1 column 103
    malformed XML: the element '_birthDate' cannot be told from what 'birthDate' has beside its value at line 1 column 1
    malformed XML: the narrative is in the namespace 'urn:x'; expected xmlns="http://www.w3.org/1999/xhtml" at line 1 column 98
    malformed XML: a narrative is XHTML, without the attribute 'value' at line 1 column 98
    malformed XML: a narrative must be whole by itself (its div is in no namespace) at line 1 column 98
    malformed XML: ']]>' must be written ]]&gt; at line 1 column 92
    malformed XML: ill-formed document: forbidden string `--` was found in a comment at line 1 column 97
    malformed XML: an XML declaration must be the first of all at line 1 column 92
    malformed XML: the attribute 'xml:lang' of 'active' is not accepted; FHIR has the attributes value, id and url at line 1 column 115
    "#);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |name: &str, n: usize| elements(&(format!("<{name}>").repeat(n) + &format!("</{name}>").repeat(n)));
    assert!(!nested("a", 98).contains("nested"), "{}", nested("a", 98));
    for refused in [nested("a", 100), nested("extension", 50), nested("a", 100_000), nested("div", 100_000)] {
        assert!(refused.starts_with("malformed XML: nested deeper than 100 levels"), "{refused}");
    }
}

const EVERYTHING: &str = r#"{"resourceType":"Bundle","id":"b","type":"collection","total":1.0,"entry":[{"fullUrl":"urn:x","resource":{"resourceType":"Patient","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><p class='a'>&lt;ü</p><!-- x --><![CDATA[y]]></div>"},"name":[{"id":"1","given":["A",null],"_given":[null,{"extension":[{"url":"u","valueBoolean":true}]}]}],"birthDate":"1970","odd":{"x":[1,{"y":null}]}}}]}"#;

/// Reads it; what is accepted must be JSON, and must be writable.
fn survive(bytes: &[u8]) {
    if let Ok(read) = from_xml(bytes, FhirVersion::R4) {
        assert!(json::parse(read.as_bytes()).is_ok(), "{read}");
        let again = to_xml(&read, Definitions::of(FhirVersion::R4));
        assert!(again.as_ref().is_ok_and(|xml| from_xml(xml.as_bytes(), FhirVersion::R4).is_ok()), "{read} {again:?}");
    }
}

/// What breaks XML more often than any byte does.
const MARKUP: &[u8] = b"<>&;\"'=/!?-[]: \n#x0_div\xff\x00";

#[test]
fn no_truncation_and_no_flipped_byte_panics() {
    let whole = to_xml(EVERYTHING, Definitions::of(FhirVersion::R4)).unwrap();
    survive(whole.as_bytes());
    for end in 0..whole.len() {
        assert!(from_xml(&whole.as_bytes()[..end], FhirVersion::R4).is_err());
    }
    // A generator of our own: which bytes are flipped shall not depend on anything else.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = MARKUP[random(MARKUP.len())],
                1 => bytes.insert(at, MARKUP[random(MARKUP.len())]),
                _ => _ = bytes.remove(at),
            }
        }
        survive(&bytes);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_survives(text in "\\PC*|[\\x09\\x0a\\x0d -~]*") {
        let members = format!("\"gender\":{}", super::super::raw::quote(&text));
        proptest::prop_assert_eq!(patient(&members), members);
    }

    #[test]
    fn any_document_is_read_or_refused(text in "(<[a-z:]{0,3}( [a-z]{0,5}=\"[a-z&;#0-9]{0,4}\")?/?>|</[a-z:]{0,3}>|[<>&;!\\[\\]?/'\"a ]|<!--|-->|<\\?|<!\\[CDATA\\[|\\]\\]>|<!DOCTYPE ){0,12}") {
        _ = from_xml(text.as_bytes(), FhirVersion::Stu3);
        survive(format!("<Patient xmlns=\"http://hl7.org/fhir\">{text}</Patient>").as_bytes());
    }
}
