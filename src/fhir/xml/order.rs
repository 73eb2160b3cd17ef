//! The order of elements, which XML fixes and JSON does not, <https://hl7.org/fhir/R4/xml.html>.

use rustc_hash::FxHashMap;

use super::super::id::clip;
use super::super::validate::{Issue, MAX_ISSUES, Severity};
use super::shape::{Form, ShapeId, Shapes};
use super::tree::Element;

/// The elements that stand after one which the definitions have behind them, in document order; of each resource, at most [`MAX_ISSUES`].
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
        for child in &element.children {
            let Some(member) = self.shapes.member(shape, child.name) else { continue };
            let count = seen.entry(child.name).or_default();
            self.at.push((child.name, member.repeats.then_some(*count)));
            *count += 1;
            match last {
                Some((before, order)) if member.order < order => self.misplaced(child.name, before),
                _ => last = Some((child.name, member.order)),
            }
            match member.form {
                Form::Text | Form::Number | Form::Boolean => self.members(child, self.shapes.unknown()),
                Form::Narrative => {}
                Form::Complex(inner) => self.members(child, inner),
                Form::Resource => {
                    if let [only] = child.children.as_slice() {
                        let most = std::mem::replace(&mut self.most, self.issues.len() + MAX_ISSUES);
                        self.members(only, self.shapes.resource(only.name));
                        self.most = most;
                    }
                }
            }
            self.at.pop();
        }
    }

    fn misplaced(&mut self, name: &str, before: &str) {
        if self.issues.len() >= self.most {
            return;
        }
        let step = |(name, place): &(&str, Option<usize>)| place.map_or_else(|| clip(name), |n| format!("{}[{n}]", clip(name)));
        let message =
            format!("'{0}' stands after '{1}'; in XML elements have the order of the definition, and '{0}' goes before '{1}'", clip(name), clip(before));
        let expression = self.at.iter().map(step).collect::<Vec<_>>().join(".");
        self.issues.push(Issue { severity: Severity::Error, code: "structure", expression, message });
    }
}
