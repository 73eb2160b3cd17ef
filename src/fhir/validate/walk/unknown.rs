//! Members that the definitions do not know, and what may have been meant.

use super::super::super::definitions::nearest;
use super::super::super::id::clip;
use super::super::report::Finding;
use super::super::schema::Shape;

/// More forms of a choice than these are not listed whole.
const MAX_LISTED: usize = 12;

/// What to say of a member that the definitions do not know.
pub fn member(shape: &Shape, key: &str) -> Finding {
    let title = shape.title();
    if key == "fhir_comments" {
        return Finding::error("structure", "'fhir_comments' was for comments before STU3; comments are not allowed");
    }
    if let Some(name) = key.strip_prefix('_').filter(|name| shape.member(name).is_some()) {
        return Finding::error("structure", format!("'{}' is unknown: '{}' in {title} is no primitive element that could have one", clip(key), clip(name)));
    }
    if let Some((choice, forms)) = shape.choice(key) {
        let near = nearest(key, forms.iter().copied()).filter(|near| *near != choice);
        let hint = match near {
            Some(near) => format!("did you mean '{near}'?"),
            None if forms.len() > MAX_LISTED => format!("accepted are {}, ...", forms[..MAX_LISTED / 2].join(", ")),
            None => format!("accepted are {}", forms.join(", ")),
        };
        return Finding::error("structure", format!("'{}' is no form of {choice}[x] in {title}; {hint}", clip(key)));
    }
    let mut message = format!("unknown element '{}' in {title}", clip(key));
    if let Some(near) = nearest(key, shape.keys()) {
        message.push_str(&format!("; did you mean '{near}'?"));
    }
    Finding::error("structure", message)
}
