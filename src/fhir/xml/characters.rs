//! Characters of XML 1.0: which there are, what a name is made of, how they are escaped. <https://www.w3.org/TR/xml/>

use std::borrow::Cow;

/// Whether XML can hold the character; most control characters it cannot, not even as a reference.
pub fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..) && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Where the first character is that XML cannot hold.
pub fn find_forbidden(text: &str) -> Option<(usize, char)> {
    // Both sorts are rare and are told by their first byte.
    let suspect = |b: u8| (b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0xef;
    if !text.bytes().any(suspect) {
        return None;
    }
    text.char_indices().find(|(_, c)| !is_allowed(*c))
}

/// Whether it is a name without a prefix.
pub fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(begins_name) && chars.all(|c| begins_name(c) || continues_name(c))
}

/// Whether it is a name, which may have a prefix.
pub fn is_qualified_name(name: &str) -> bool {
    name.split_once(':').map_or_else(|| is_name(name), |(prefix, local)| is_name(prefix) && is_name(local))
}

fn begins_name(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}' | '\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}'
        | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

fn continues_name(c: char) -> bool {
    matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}' | '\u{2040}')
}

/// Whether it is white space of XML and nothing else.
pub fn is_space(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
}

/// Appends an attribute's value. White space other than blanks is written as references: readers of XML must replace it
/// by blanks otherwise.
///
/// # Errors
/// The first character that XML cannot hold.
pub fn escape(text: &str, out: &mut String) -> Result<(), char> {
    if let Some((_, c)) = find_forbidden(text) {
        return Err(c);
    }
    let mut done = 0;
    for (at, b) in text.bytes().enumerate() {
        let reference = match b {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\t' => "&#9;",
            b'\n' => "&#10;",
            b'\r' => "&#13;",
            _ => continue,
        };
        out.push_str(&text[done..at]);
        out.push_str(reference);
        done = at + 1;
    }
    out.push_str(&text[done..]);
    Ok(())
}

/// The character that `&name;` stands for.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn reference(name: &str) -> Result<char, String> {
    let named = match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    };
    if let Some(c) = named {
        return Ok(c);
    }
    let Some(number) = name.strip_prefix('#') else {
        let name: String = name.chars().take(40).collect();
        return Err(format!("entity '{name}' is not defined; write the character itself, or its number such as &#160;"));
    };
    let code = match number.strip_prefix('x') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
        _ => None,
    };
    let found = code.and_then(char::from_u32).filter(|c| is_allowed(*c));
    found.ok_or_else(|| format!("'&#{};' is no character of XML", number.chars().take(40).collect::<String>()))
}

/// An attribute's value as it is meant: references resolved, white space made blanks.
///
/// # Errors
/// Where it is wrong, and why.
pub fn unescape(raw: &str) -> Result<Cow<'_, str>, (usize, String)> {
    if let Some(at) = raw.find('<') {
        return Err((at, "'<' in an attribute's value must be written &lt;".to_owned()));
    }
    if !raw.bytes().any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut here = 0;
    while let Some(next) = raw[here..].find(['&', '\t', '\n', '\r']).map(|n| here + n) {
        out.push_str(&raw[here..next]);
        if raw.as_bytes()[next] == b'&' {
            let Some(end) = raw[next..].find(';').map(|n| next + n) else {
                return Err((next, "'&' that begins no reference must be written &amp;".to_owned()));
            };
            out.push(reference(&raw[next + 1..end]).map_err(|why| (next, why))?);
            here = end + 1;
        } else {
            out.push(' ');
            // A line end of two characters is one.
            here = next + if raw[next..].starts_with("\r\n") { 2 } else { 1 };
        }
    }
    out.push_str(&raw[here..]);
    Ok(Cow::Owned(out))
}
