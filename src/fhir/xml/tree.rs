//! An XML document as a tree of FHIR's elements.

use std::borrow::Cow;

use super::super::Failure;
use super::super::id::clip;
use super::super::json::MAX_DEPTH;
use super::tokens::{Namespace, Tag, Token, Tokens};
use super::{FHIR_NAMESPACE, narrative};

/// An element of FHIR.
pub struct Element<'x> {
    /// Its name, without a prefix.
    pub name: &'x str,
    /// The attribute `value`.
    pub value: Option<Cow<'x, str>>,
    /// The attributes `id` and `url`.
    pub attributes: Vec<(&'x str, Cow<'x, str>)>,
    /// The elements in it, in their order.
    pub children: Vec<Element<'x>>,
    /// The narrative that it is, as it stands.
    pub narrative: Option<Cow<'x, str>>,
    /// Where it stands.
    pub at: usize,
}

/// Reads a document.
///
/// # Errors
/// As [`super::from_xml`].
pub fn parse(text: &str) -> Result<Element<'_>, Failure> {
    let mut tokens = Tokens::new(text)?;
    let mut open: Vec<Element<'_>> = Vec::new();
    let mut root = None;
    loop {
        let (token, span) = tokens.next()?;
        let closed = match token {
            Token::Start(_) if root.is_some() => return Err(tokens.wrong(span.start, "a document has one root element, and this is a second one")),
            Token::Start(_) if open.len() == MAX_DEPTH => return Err(tokens.wrong(span.start, format_args!("nested deeper than {MAX_DEPTH} levels"))),
            Token::Start(tag) => {
                let is_empty = tag.is_empty;
                if !open.is_empty() && is_narrative(&tag) {
                    let at = span.start;
                    let narrative = Some(narrative::take(text, &mut tokens, &tag, span, open.len())?);
                    Some(Element { name: tag.name, value: None, attributes: Vec::new(), children: Vec::new(), narrative, at })
                } else {
                    let element = element(tag, span.start, open.is_empty(), &tokens)?;
                    if is_empty {
                        Some(element)
                    } else {
                        open.push(element);
                        None
                    }
                }
            }
            Token::End => open.pop(),
            Token::Text { is_blank: true } => None,
            Token::Text { is_blank: false } => return Err(tokens.wrong(visible(text, span.start), stray_text(&open))),
            Token::Eof => break,
        };
        match (closed, open.last_mut()) {
            (Some(element), Some(parent)) => parent.children.push(element),
            (Some(element), None) => root = Some(element),
            (None, _) => {}
        }
    }
    if let Some(unclosed) = open.pop() {
        return Err(tokens.wrong(text.len(), format_args!("the element '{}' is not closed", clip(unclosed.name))));
    }
    root.ok_or_else(|| tokens.wrong(text.len(), "there is no element; a FHIR resource in XML was expected"))
}

/// Whether it begins a narrative. An element of this name that has a value is a member that nobody knows.
fn is_narrative(tag: &Tag<'_>) -> bool {
    tag.name == "div" && (tag.namespace == Namespace::Xhtml || !tag.attributes.iter().any(|a| a.name == "value"))
}

fn element<'x>(tag: Tag<'x>, at: usize, is_root: bool, tokens: &Tokens<'x>) -> Result<Element<'x>, Failure> {
    if tag.namespace != Namespace::Fhir {
        let found = match &tag.namespace {
            Namespace::Fhir | Namespace::None => "no namespace".to_owned(),
            Namespace::Xhtml => format!("the namespace '{}'", super::XHTML_NAMESPACE),
            Namespace::Other(name) => format!("the namespace '{}'", clip(name)),
        };
        let what = if is_root { "the root element" } else { "the element" };
        return Err(tokens.wrong(at, format_args!("{what} '{}' is in {found}; expected xmlns=\"{FHIR_NAMESPACE}\"", clip(tag.qualified))));
    }
    let mut element = Element { name: tag.name, value: None, attributes: Vec::new(), children: Vec::new(), narrative: None, at };
    for attribute in tag.attributes {
        match attribute.name {
            "value" => element.value = Some(attribute.value),
            "id" | "url" => element.attributes.push((attribute.name, attribute.value)),
            "xmlns" => {}
            name if attribute.is_schema_instance || name.starts_with("xmlns:") => {}
            name => {
                let expected = "FHIR has the attributes value, id and url";
                return Err(tokens.wrong(attribute.at, format_args!("the attribute '{}' of '{}' is not accepted; {expected}", clip(name), clip(tag.name))));
            }
        }
    }
    Ok(element)
}

fn stray_text(open: &[Element<'_>]) -> String {
    match open.last() {
        Some(element) => format!("there is text in '{}'; values of FHIR elements are in their attribute value", clip(element.name)),
        None => "there is text outside of the root element".to_owned(),
    }
}

/// Where the text that begins at `from` begins to be more than white space.
fn visible(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + (rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len())
}
