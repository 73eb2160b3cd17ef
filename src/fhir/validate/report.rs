//! The issues found so far, and the place in the resource where the walk is.

use std::fmt::Write as _;

use super::super::id::clip;
use super::{Issue, MAX_ISSUES, Severity};

/// What one rule has to say about one value; the walk knows the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
}

impl Finding {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into() }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, message: message.into() }
    }
}

/// Collects issues. The place is one text that grows and shrinks with the walk: it is copied only for an issue.
#[derive(Default)]
pub struct Report {
    place: String,
    issues: Vec<Issue>,
}

impl Report {
    /// Goes to the element `name` of where the walk is. Returns what [`Report::back`] needs.
    pub fn enter(&mut self, name: &str) -> usize {
        let before = self.place.len();
        if before > 0 {
            self.place.push('.');
        }
        self.place.push_str(name);
        before
    }

    /// Goes to the item `index` of where the walk is.
    pub fn enter_item(&mut self, index: usize) -> usize {
        let before = self.place.len();
        // Writing to a String cannot fail.
        _ = write!(self.place, "[{index}]");
        before
    }

    /// Goes back to where the walk was.
    pub fn back(&mut self, before: usize) {
        self.place.truncate(before);
    }

    /// Whether there are as many issues as anyone would read.
    pub fn is_full(&self) -> bool {
        self.issues.len() >= MAX_ISSUES
    }

    /// Notes an issue of where the walk is.
    pub fn add(&mut self, Finding { severity, code, message }: Finding) {
        if !self.is_full() {
            self.issues.push(Issue { severity, code, expression: self.place.clone(), message });
        }
    }

    /// Notes an issue of the element `name` of where the walk is.
    pub fn add_at(&mut self, name: &str, finding: Finding) {
        let before = self.enter(name);
        self.add(finding);
        self.back(before);
    }

    /// All of them.
    pub fn into_issues(self) -> Vec<Issue> {
        self.issues
    }
}

/// A member's name as a step of a FHIRPath expression: in back quotes where it is no identifier.
pub fn step(key: &str) -> String {
    let identifier = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if identifier && key.len() <= 80 { key.to_owned() } else { format!("`{}`", clip(key).replace('\\', "\\\\").replace('`', "\\`")) }
}
