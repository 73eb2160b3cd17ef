//! Generators write R4; here is what other versions call otherwise, or lack.

use fhirsim::fhir::FhirVersion;
use serde_json::{Map, Value, json};

use crate::naive::quantity::CURRENCY;

type Content = Map<String, Value>;

pub fn adapt(content: &mut Content, type_name: &str, version: FhirVersion) {
    match version {
        FhirVersion::Stu3 => to_stu3(content, type_name),
        FhirVersion::R4 | FhirVersion::R4b => {}
        FhirVersion::R5 => to_r5(content, type_name),
    }
}

fn to_stu3(content: &mut Content, type_name: &str) {
    match type_name {
        "Patient" => drop(content.get_mut("meta").and_then(|meta| meta.as_object_mut()?.remove("source"))),
        "Observation" => {
            content.remove("effectiveTiming");
            content.remove("effectiveInstant");
            rename(content, "encounter", "context");
        }
        "ChargeItem" => {
            let price = content.remove("priceOverride").map(|money| json!({"value": money["value"], "system": CURRENCY, "code": money["currency"]}));
            content.extend(price.map(|price| ("priceOverride".to_owned(), price)));
        }
        "QuestionnaireResponse" => {
            // A URL and version in R4; here a reference, made from the URL's last character.
            let number = content.remove("questionnaire").and_then(|url| url.as_str()?.split('|').next()?.chars().last());
            content.extend(number.map(|n| ("questionnaire".to_owned(), json!({"reference": format!("Questionnaire/r{n}")}))));
        }
        _ => {}
    }
}

fn to_r5(content: &mut Content, type_name: &str) {
    match type_name {
        "Encounter" => {
            rename(content, "period", "actualPeriod");
            let class = content.remove("class").unwrap();
            content.insert("class".to_owned(), json!([{"coding": [class]}]));
        }
        "Group" => {
            content.remove("actual");
            content.insert("membership".to_owned(), "enumerated".into());
        }
        "ChargeItem" => {
            let (factor, amount) = (content.remove("factorOverride"), content.remove("priceOverride"));
            let mut component = Content::from_iter([("type".to_owned(), "base".into())]);
            component.extend(factor.map(|f| ("factor".to_owned(), f)));
            component.extend(amount.map(|a| ("amount".to_owned(), a)));
            content.insert("totalPriceComponent".to_owned(), component.into());
        }
        _ => {}
    }
}

fn rename(content: &mut Content, from: &str, to: &str) {
    let value = content.remove(from);
    content.extend(value.map(|value| (to.to_owned(), value)));
}
