//! Text for people.

use serde_json::{Value, json};

use super::datatypes::text;
use crate::naive::rng::Rng;

/// Markup only around whole words, so that it does not matter what a tag does to words.
const SENTENCES: &[&str] = &[
    "<p>Broken arm, seen at the emergency ward</p>",
    "<p>broken <b>Élbow</b> and arm; pain since Monday</p>",
    "<p>Pain in the arm</p>",
    "<p>Asthma &amp; allergies: no pain</p>",
    "<ul><li>Asthma since childhood</li><li>Smoker</li></ul>",
    "<p>Works in a caf&#233;, smoker</p>",
    "<p>ARM PAIN, resolved</p>",
    "<p>Nothing to report</p>",
    "<p>Painful broken leg</p>",
];

pub fn narrative(rng: &mut Rng) -> Value {
    let both = format!("{}{}", text(rng, SENTENCES).as_str().unwrap(), if rng.chance(40) { *rng.pick(SENTENCES) } else { "" });
    json!({"status": "additional", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{both}</div>")})
}
