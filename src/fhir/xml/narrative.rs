//! The narrative: XHTML inside FHIR, <https://hl7.org/fhir/R4/narrative.html>. It is copied, never written anew.

use std::borrow::Cow;
use std::ops::Range;

use super::super::Failure;
use super::super::id::clip;
use super::super::json::MAX_DEPTH;
use super::XHTML_NAMESPACE;
use super::tokens::{Namespace, Tag, Token, Tokens};

/// How a carriage return is written, so that it is one when it is read.
pub const CARRIAGE_RETURN: &str = "&#13;";

/// Reads on to the end of the narrative that `tag` begins, `depth` elements deep.
///
/// # Errors
/// It is in another namespace than XHTML's; not well-formed; nested too deeply.
pub fn take<'x>(text: &'x str, tokens: &mut Tokens<'x>, tag: &Tag<'x>, span: Range<usize>, depth: usize) -> Result<Cow<'x, str>, Failure> {
    let start = span.start;
    if let Namespace::Other(namespace) = &tag.namespace {
        let namespace = clip(namespace);
        return Err(tokens.wrong(start, format_args!("the narrative is in the namespace '{namespace}'; expected xmlns=\"{XHTML_NAMESPACE}\"")));
    }
    let prefixes = tokens.prefixes();
    let end = skip(tokens, tag, span.end, depth)?;
    let whole = text.get(start..end).unwrap_or_default();
    // In JSON it stands alone, so what the elements around it have declared goes along.
    let narrative = if tag.namespace == Namespace::Xhtml { declared(whole, tag) } else { Cow::Borrowed(whole) };
    let narrative = with_prefixes(narrative, tag, &prefixes);
    // What passes here can be written again.
    embed(&narrative).map_err(|why| tokens.wrong(start, format_args!("a narrative must be whole by itself ({why})")))?;
    // Whatever ends a line is one line feed, XML 1.0, 2.11.
    let narrative = if narrative.contains('\r') { Cow::Owned(narrative.replace("\r\n", "\n").replace('\r', "\n")) } else { narrative };
    Ok(if narrative.contains(CARRIAGE_RETURN) { Cow::Owned(narrative.replace(CARRIAGE_RETURN, "\r")) } else { narrative })
}

/// The narrative as it can stand in a document: with its namespace declared.
///
/// # Errors
/// Why it cannot.
pub fn embed(narrative: &str) -> Result<Cow<'_, str>, String> {
    let div = narrative.trim_matches([' ', '\t', '\n', '\r']);
    let plain = |failure: Failure| failure.diagnostics;
    let mut tokens = Tokens::new(div).map_err(plain)?;
    let (Token::Start(tag), Range { start: 0, end }) = tokens.next().map_err(plain)? else {
        return Err("it does not begin with <div".to_owned());
    };
    if tag.name != "div" {
        return Err(format!("its element is '{}', not div", clip(tag.name)));
    }
    let end = skip(&mut tokens, &tag, end, 0).map_err(plain)?;
    if end != div.len() {
        return Err("something follows after its div".to_owned());
    }
    match &tag.namespace {
        Namespace::Xhtml | Namespace::Fhir => Ok(Cow::Borrowed(div)),
        Namespace::None if !tag.attributes.iter().any(|a| a.name == "xmlns") => Ok(declared(div, &tag)),
        Namespace::None => Err("its div is in no namespace".to_owned()),
        Namespace::Other(name) => Err(format!("its div is in the namespace '{}', not in that of XHTML", clip(name))),
    }
}

/// Reads on to the end of the element that `tag`, which ends at `end`, begins.
fn skip(tokens: &mut Tokens<'_>, tag: &Tag<'_>, end: usize, depth: usize) -> Result<usize, Failure> {
    let mut end = end;
    let mut open = depth + usize::from(!tag.is_empty);
    while open > depth {
        let (token, span) = tokens.next()?;
        match token {
            Token::Start(_) if open >= MAX_DEPTH => return Err(tokens.wrong(span.start, format_args!("nested deeper than {MAX_DEPTH} levels"))),
            Token::Start(inner) => open += usize::from(!inner.is_empty),
            Token::End => open -= 1,
            Token::Text { .. } => {}
            Token::Eof => return Err(tokens.wrong(span.end, "the narrative's 'div' is not closed")),
        }
        end = span.end;
    }
    Ok(end)
}

/// The element with declarations of the prefixes that are used in it and declared around it.
fn with_prefixes<'x>(element: Cow<'x, str>, tag: &Tag<'_>, prefixes: &[(String, String)]) -> Cow<'x, str> {
    let own = tag.qualified.split_once(':').map(|(prefix, _)| prefix);
    let is_used = |prefix: &str| ["<", " ", "\t", "\n", "\r"].iter().any(|before| element.contains(&format!("{before}{prefix}:")));
    let is_declared = |prefix: &str| own == Some(prefix) || tag.attributes.iter().any(|a| a.name.strip_prefix("xmlns:") == Some(prefix));
    let missing = prefixes.iter().filter(|(prefix, _)| !is_declared(prefix) && is_used(prefix));
    let declarations = missing.fold(String::new(), |all, (prefix, namespace)| all + &format!(" xmlns:{prefix}=\"{}\"", namespace.replace('"', "&quot;")));
    match element.split_at_checked(1 + tag.qualified.len()).filter(|_| !declarations.is_empty()) {
        Some((name, rest)) => Cow::Owned(format!("{name}{declarations}{rest}")),
        None => element,
    }
}

/// The element with a declaration of XHTML's namespace for its own name, if it has none.
fn declared<'x>(element: &'x str, tag: &Tag<'_>) -> Cow<'x, str> {
    let prefix = tag.qualified.split_once(':').map(|(prefix, _)| prefix);
    let declaration = prefix.map_or_else(|| Cow::Borrowed("xmlns"), |prefix| Cow::Owned(format!("xmlns:{prefix}")));
    if tag.attributes.iter().any(|a| a.name == declaration) {
        return Cow::Borrowed(element);
    }
    let name_end = 1 + tag.qualified.len();
    let (name, rest) = element.split_at_checked(name_end).unwrap_or((element, ""));
    Cow::Owned(format!("{name} {declaration}=\"{XHTML_NAMESPACE}\"{rest}"))
}
