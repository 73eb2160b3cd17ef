//! JSON as a tree of pieces of its text: read in one pass, every number as it stands.
//!
//! [`super::super::raw`] looks only at what is asked for, and reads what lies in it again when that is asked for: right for
//! a member or two, but a document has all of them at every depth.

use std::borrow::Cow;

use memchr::memchr2;

use super::super::raw;

/// The members of an object, keys without escapes.
pub type Members<'j> = Vec<(Cow<'j, str>, Node<'j>)>;

/// A JSON value.
pub enum Node<'j> {
    /// A string with its quotes, a number, `true`, `false`, or `null`.
    Scalar(&'j str),
    /// An array.
    Array(Vec<Node<'j>>),
    /// An object.
    Object(Members<'j>),
}

impl<'j> Node<'j> {
    /// Reads a text that [`super::super::json::parse`] has read before.
    pub fn read(text: &'j str) -> Self {
        Scanner { text, at: 0 }.value()
    }

    /// The type and the members of the resource that it is; itself, if it is none.
    pub fn into_resource(self) -> Result<(Cow<'j, str>, Members<'j>), Self> {
        let Self::Object(members) = self else { return Err(self) };
        match members.iter().find(|(key, _)| key == "resourceType") {
            Some((_, Self::Scalar(name))) if name.starts_with('"') => Ok((raw::string(name), members)),
            _ => Err(Self::Object(members)),
        }
    }

    /// Whether it, or all of it if it is an array, is neither object nor array.
    pub fn is_scalar(&self) -> bool {
        self.all(|node| matches!(node, Self::Scalar(_)))
    }

    /// Whether it, or all of it if it is an array, is an object or null.
    pub fn is_beside(&self) -> bool {
        self.all(|node| matches!(node, Self::Object(_) | Self::Scalar("null")))
    }

    fn all(&self, is: impl Fn(&Self) -> bool) -> bool {
        match self {
            Self::Array(items) => items.iter().all(is),
            Self::Scalar(_) | Self::Object(_) => is(self),
        }
    }
}

struct Scanner<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Scanner<'j> {
    fn value(&mut self) -> Node<'j> {
        match self.next() {
            b'{' => {
                self.at += 1;
                let mut members = Vec::with_capacity(8);
                while self.next() == b'"' {
                    let key = raw::string(self.string());
                    if self.next() == b':' {
                        self.at += 1;
                    }
                    members.push((key, self.value()));
                    self.comma();
                }
                self.at += 1;
                Node::Object(members)
            }
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while !matches!(self.next(), b']' | b'}' | b',' | 0) {
                    items.push(self.value());
                    self.comma();
                }
                self.at += 1;
                Node::Array(items)
            }
            b'"' => Node::Scalar(self.string()),
            _ => {
                let rest = self.rest();
                let end = rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                self.at += end;
                Node::Scalar(&rest[..end])
            }
        }
    }

    /// The next byte that is not white space, 0 at the end.
    fn next(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn comma(&mut self) {
        if self.next() == b',' {
            self.at += 1;
        }
    }

    fn string(&mut self) -> &'j str {
        let rest = self.rest();
        let mut end = 1;
        while let Some(found) = memchr2(b'"', b'\\', rest.as_bytes().get(end..).unwrap_or_default()) {
            end += found + 1;
            if rest.as_bytes()[end - 1] == b'"' {
                self.at += end;
                return &rest[..end];
            }
            // The character after a backslash ends no string.
            end += 1;
        }
        self.at = self.text.len();
        rest
    }

    fn rest(&self) -> &'j str {
        self.text.get(self.at..).unwrap_or_default()
    }
}
