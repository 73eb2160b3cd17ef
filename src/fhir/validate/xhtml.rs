//! Narrative: one `div` of XHTML, <https://hl7.org/fhir/R4/narrative.html#xhtml>.
//!
//! A light check: that it begins with a `div` in the XHTML namespace, that tags are balanced, and that nothing comes after.
//! Which elements and attributes are safe is for those who show it; an XML parser would be a dependency for this alone.

/// The namespace.
const XHTML: &str = "http://www.w3.org/1999/xhtml";

/// Judges a narrative; the error says why it is none.
pub fn check(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    let mut seen = false;
    while let Some(at) = rest.find('<') {
        if open.is_empty() && !rest[..at].trim().is_empty() {
            break;
        }
        let (tag, after) = markup(&rest[at..])?;
        rest = after;
        match tag {
            Markup::Text if open.is_empty() => return Err("it has text outside of the div".to_owned()),
            Markup::Text | Markup::Aside => {}
            Markup::Close(name) => match open.pop() {
                Some(opened) if opened == name => {}
                Some(opened) => return Err(format!("</{}> closes <{}>", clipped(name), clipped(opened))),
                None => return Err(format!("</{}> closes nothing", clipped(name))),
            },
            Markup::Open { name, attributes, is_empty } => {
                if open.is_empty() {
                    root(name, attributes, seen)?;
                    seen = true;
                }
                if !is_empty {
                    open.push(name);
                }
            }
        }
    }
    match open.pop() {
        Some(opened) => Err(format!("<{}> is not closed", clipped(opened))),
        None if !seen => Err(format!("it is one <div xmlns=\"{XHTML}\">")),
        None if !rest.trim().is_empty() => Err("it has text outside of the div".to_owned()),
        None => Ok(()),
    }
}

/// Whether the outermost element is what it has to be.
fn root(name: &str, attributes: &str, seen: bool) -> Result<(), String> {
    if seen {
        return Err(format!("<{}> comes after the div", clipped(name)));
    }
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    if local != "div" {
        return Err(format!("it begins with <{}> instead of <div>", clipped(name)));
    }
    let declared = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
    match attribute(attributes, &declared) {
        Some(XHTML) => Ok(()),
        Some(other) => Err(format!("its namespace is '{}' instead of {XHTML}", clipped(other))),
        None => Err(format!("its namespace is missing: <div xmlns=\"{XHTML}\">")),
    }
}

/// The value of an attribute, white space around `=` allowed.
fn attribute<'t>(mut rest: &'t str, name: &str) -> Option<&'t str> {
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = after[1..].split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = after;
    }
}

enum Markup<'t> {
    Open {
        name: &'t str,
        attributes: &'t str,
        is_empty: bool,
    },
    Close(&'t str),
    /// A comment or processing instruction, which may be anywhere.
    Aside,
    /// A CDATA section.
    Text,
}

/// The piece of markup that a text begins with, and the text after it.
fn markup(text: &str) -> Result<(Markup<'_>, &str), String> {
    for (begin, end, is_text) in [("<!--", "-->", false), ("<![CDATA[", "]]>", true), ("<?", "?>", false)] {
        if let Some(inner) = text.strip_prefix(begin) {
            let (_, after) = inner.split_once(end).ok_or_else(|| format!("{begin} is not closed by {end}"))?;
            return Ok((if is_text { Markup::Text } else { Markup::Aside }, after));
        }
    }
    let name = text[1..].strip_prefix('/').unwrap_or(&text[1..]);
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return Err(format!("'<' begins no tag in {}; write &lt;", clipped(text)));
    }
    let end = end_of_tag(text).ok_or_else(|| format!("the tag {} has no end", clipped(text)))?;
    let (inner, after) = (&text[1..end], &text[end + 1..]);
    if let Some(name) = inner.strip_prefix('/') {
        return Ok((Markup::Close(name.trim_end()), after));
    }
    let (inner, is_empty) = inner.strip_suffix('/').map_or((inner, false), |inner| (inner, true));
    let (name, attributes) = inner.split_at(inner.find(char::is_whitespace).unwrap_or(inner.len()));
    Ok((Markup::Open { name, attributes, is_empty }, after))
}

/// Where the `>` is that is in no quotes.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, b) in text.bytes().enumerate().skip(1) {
        match (quote, b) {
            (None, b'>') => return Some(at),
            (None, b'<') => return None,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
    }
    None
}

/// The beginning of a text that may be long.
fn clipped(text: &str) -> &str {
    text.char_indices().nth(30).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for text in [
            "<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>",
            " <?pi?><!-- c -->\n<div class='a' xmlns = 'http://www.w3.org/1999/xhtml'\n><p>a<br />b</p ></div> ",
            "<h:div xmlns:h=\"http://www.w3.org/1999/xhtml\"><h:b/></h:div><!-- end -->",
            "<div xmlns=\"http://www.w3.org/1999/xhtml\"/>",
            "<div xmlns=\"http://www.w3.org/1999/xhtml\"><a title=\"a>b/\">x</a> > <![CDATA[</p>]]></div>",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn refused() {
        let inside = |text: &str| check(&format!("<div xmlns=\"{XHTML}\">{text}</div>")).err().unwrap_or_default();
        assert_eq!(inside("<p>x"), "</div> closes <p>");
        assert_eq!(inside("<b><i></b></i>"), "</b> closes <i>");
        assert_eq!(inside("a < b"), "'<' begins no tag in < b</div>; write &lt;");
        assert_eq!(inside("<p"), "the tag <p</div> has no end");
        assert_eq!(inside("<!-- x"), "<!-- is not closed by -->");
        assert_eq!(inside("<3>"), "'<' begins no tag in <3></div>; write &lt;");
        for (text, expected) in [
            ("x", "it is one <div xmlns=\"http://www.w3.org/1999/xhtml\">"),
            ("<div>x</div>", "its namespace is missing: <div xmlns=\"http://www.w3.org/1999/xhtml\">"),
            ("<div xmlns='http://x'>x</div>", "its namespace is 'http://x' instead of http://www.w3.org/1999/xhtml"),
            ("<p>x</p>", "it begins with <p> instead of <div>"),
            ("<div xmlns='http://www.w3.org/1999/xhtml'>x", "<div> is not closed"),
            ("<div xmlns='http://www.w3.org/1999/xhtml'/>x", "it has text outside of the div"),
            ("x<div xmlns='http://www.w3.org/1999/xhtml'/>", "it is one <div xmlns=\"http://www.w3.org/1999/xhtml\">"),
            ("<![CDATA[x]]>", "it has text outside of the div"),
            ("<div xmlns='http://www.w3.org/1999/xhtml'/><p/>", "<p> comes after the div"),
            ("</div>", "</div> closes nothing"),
            ("<", "'<' begins no tag in <; write &lt;"),
        ] {
            assert_eq!(check(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged(text in "(<|>|/|div|!--|=|'|\"|ü| |\\?|<!\\[CDATA\\[|\\]\\]>| xmlns){0,20}") {
            _ = check(&text);
        }
    }
}
