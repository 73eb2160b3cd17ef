//! What XML fixes and JSON does not: the order of elements, and which of them are attributes, <https://hl7.org/fhir/R4/xml.html>.

use rustc_hash::FxHashMap;

use super::super::id::clip;
use super::super::validate::{Issue, MAX_ISSUES, Severity};
use super::shape::{Form, ShapeId, Shapes};
use super::tree::Element;

/// The elements that stand after one which the definitions have behind them, or are said in another way than XML has them, in document
/// order; of each resource, at most [`MAX_ISSUES`].
pub fn disorder(root: &Element<'_>, shapes: &'static Shapes) -> Vec<Issue> {
    let mut walk = Walk { shapes, at: vec![(root.name, None)], issues: Vec::new(), most: MAX_ISSUES };
    walk.members(root, shapes.resource(root.name));
    walk.issues
}

struct Walk<'x> {
    shapes: &'static Shapes,
    /// The names that lead here, and their place where they repeat.
    at: Vec<(&'x str, Option<usize>)>,
    issues: Vec<Issue>,
    /// How many there may be in all by the end of this resource.
    most: usize,
}

impl<'x> Walk<'x> {
    fn members(&mut self, element: &Element<'x>, shape: ShapeId) {
        let mut last: Option<(&str, u32)> = None;
        let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
        for (name, _) in &element.attributes {
            if let Some(member) = self.shapes.member(shape, name).filter(|member| !member.is_attribute) {
                self.wrong_kind(member.name, format!("'{0}' is an element in XML and no attribute; write <{0} value=\"…\"/>", clip(name)));
            }
        }
        for child in &element.children {
            let Some(member) = self.shapes.member(shape, child.name) else {
                if child.name.starts_with('_') {
                    self.wrong_kind(
                        child.name,
                        format!("'{}' is a name of JSON; in XML what it holds belongs into the element '{}'", clip(child.name), clip(&child.name[1..])),
                    );
                }
                continue;
            };
            if member.is_attribute {
                self.wrong_kind(child.name, format!("'{0}' is an attribute in XML and no element; write {0}=\"…\" in the tag around it", clip(child.name)));
                continue;
            }
            let count = seen.entry(child.name).or_default();
            self.at.push((member.name, member.repeats.then_some(*count)));
            *count += 1;
            match last {
                Some((before, order)) if member.order < order => self.misplaced(child.name, before),
                _ => last = Some((child.name, member.order)),
            }
            match member.form {
                Form::Text | Form::Number | Form::SignedNumber | Form::Boolean => self.members(child, self.shapes.unknown()),
                Form::Narrative => {}
                Form::Complex(inner) => self.members(child, inner),
                Form::Resource => match child.children.as_slice() {
                    [only] => {
                        let most = std::mem::replace(&mut self.most, self.issues.len() + MAX_ISSUES);
                        self.members(only, self.shapes.resource(only.name));
                        self.most = most;
                    }
                    [] => {}
                    several => self.report(format!("'{0}' holds {1} elements; in XML each resource has a '{0}' of its own", clip(child.name), several.len())),
                },
            }
            self.at.pop();
        }
    }

    fn misplaced(&mut self, name: &str, before: &str) {
        self.report(format!(
            "'{0}' stands after '{1}'; in XML elements have the order of the definition, and '{0}' goes before '{1}'",
            clip(name),
            clip(before)
        ));
    }

    /// An attribute that is to be an element, or the other way round.
    fn wrong_kind(&mut self, name: &'x str, message: String) {
        self.at.push((name, None));
        self.report(message);
        self.at.pop();
    }

    fn report(&mut self, message: String) {
        if self.issues.len() >= self.most {
            return;
        }
        let step = |(name, place): &(&str, Option<usize>)| place.map_or_else(|| clip(name), |n| format!("{}[{n}]", clip(name)));
        let expression = self.at.iter().map(step).collect::<Vec<_>>().join(".");
        self.issues.push(Issue { severity: Severity::Error, code: "structure", expression, message });
    }
}
