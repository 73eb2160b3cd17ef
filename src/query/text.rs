//! Full text: the words of a resource, and the conditions on them that `_text`, `_content` and `:text-advanced` make.
//!
//! Words are runs of letters and digits, without case and accents, unstemmed. A condition is words with `AND`, `OR`, `NOT`,
//! parentheses, `"phrases"` and `prefix*`; words side by side must all be there.

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longest word in bytes; what is longer is no word but encoded data.
pub const MAX_WORD_BYTES: usize = 128;
/// A string of this many bytes without a blank is encoded data.
const MAX_UNBROKEN: usize = 2_048;
/// Most parentheses in one another.
const MAX_DEPTH: usize = 32;

/// Which text of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextField {
    /// The narrative.
    Narrative,
    /// Every string.
    Content,
}

/// A condition on words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The word is there.
    Word(String),
    /// A word that begins so is there.
    Prefix(String),
    /// The words are there side by side.
    Phrase(Vec<String>),
    /// All of these.
    And(Vec<Text>),
    /// Any of these.
    Or(Vec<Text>),
    /// Not this.
    Not(Box<Text>),
}

impl Text {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong, at which character.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
        let found = parser.any()?;
        match parser.tokens.get(parser.at) {
            None => Ok(found),
            Some((at, _)) => Err(format!("unexpected ')' at character {}", at + 1)),
        }
    }

    /// Decides for the words of a resource, string by string.
    #[must_use]
    pub fn matches(&self, strings: &[Vec<String>]) -> bool {
        let some = |test: &dyn Fn(&str) -> bool| strings.iter().flatten().any(|w| test(w));
        match self {
            Self::Word(word) => some(&|w| w == word),
            Self::Prefix(prefix) => some(&|w| w.starts_with(prefix.as_str())),
            Self::Phrase(words) => strings.iter().any(|s| s.windows(words.len()).any(|w| w == &words[..])),
            Self::And(parts) => parts.iter().all(|p| p.matches(strings)),
            Self::Or(parts) => parts.iter().any(|p| p.matches(strings)),
            Self::Not(part) => !part.matches(strings),
        }
    }

    /// The words that raise the score of a resource which has them, each once.
    #[must_use]
    pub fn wanted(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Word(word) => found.push(word),
            Self::Phrase(words) => found.extend(words.iter().map(String::as_str)),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.collect(found)),
            Self::Prefix(_) | Self::Not(_) => {}
        }
    }
}

/// The score of a resource in which the wanted words occur so often: 0 to 1 in millionths. It depends on nothing but the
/// resource, so that it stays the same whatever else is stored.
#[must_use]
pub fn score(occurrences: &[u32]) -> u64 {
    if occurrences.is_empty() {
        return 1_000_000;
    }
    let sum: u64 = occurrences.iter().map(|n| u64::from(*n) * 1_000_000 / (u64::from(*n) + 1)).sum();
    sum / occurrences.len() as u64
}

/// The score of a stored resource.
#[must_use]
pub fn score_of(body: &[u8], field: TextField, text: &Text) -> u64 {
    let strings = words_of(body, field);
    let count = |word: &str| u32::try_from(strings.iter().flatten().filter(|w| *w == word).count()).unwrap_or(u32::MAX);
    score(&text.wanted().into_iter().map(count).collect::<Vec<_>>())
}

/// The words of a stored resource, string by string.
#[must_use]
pub fn words_of(body: &[u8], field: TextField) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    if let Ok(resource) = serde_json::from_slice::<Value>(body) {
        strings_of(&resource, field, &mut |text| found.push(words(text)));
    }
    found
}

/// Calls `found` with every string of the resource that belongs to `field`, as text without markup.
pub fn strings_of(resource: &Value, field: TextField, found: &mut dyn FnMut(&str)) {
    if let Some(div) = resource.get("text").and_then(|t| t.get("div")).and_then(Value::as_str) {
        found(&without_markup(div));
    }
    if field == TextField::Content
        && let Value::Object(members) = resource
    {
        members.iter().filter(|(name, _)| !matches!(name.as_str(), "text" | "resourceType")).for_each(|(_, value)| strings_in(value, found));
        let aside = resource.get("text").and_then(Value::as_object).into_iter().flatten().filter(|(name, _)| *name != "div");
        aside.for_each(|(_, value)| strings_in(value, found));
    }
}

fn strings_in(value: &Value, found: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) if text.len() < MAX_UNBROKEN || text.bytes().take(MAX_UNBROKEN).any(|b| b == b' ') => found(text),
        Value::Array(items) => items.iter().for_each(|v| strings_in(v, found)),
        Value::Object(members) => members.values().for_each(|v| strings_in(v, found)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Elements within a line, which separate no words.
const INLINE: [&str; 19] = ["a", "abbr", "acronym", "b", "big", "cite", "code", "dfn", "em", "i", "q", "s", "small", "span", "strong", "sub", "sup", "tt", "u"];

/// The text between the tags; a tag separates words, but for those within a line.
#[must_use]
pub fn without_markup(div: &str) -> String {
    let mut out = String::with_capacity(div.len());
    let mut rest = div;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        let tag = rest[start + 1..].trim_start_matches('/');
        let name = &tag[..tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len())];
        if !INLINE.contains(&name) {
            out.push(' ');
        }
        rest = rest[start..].find('>').map_or("", |end| &rest[start + end + 1..]);
    }
    out.push_str(rest);
    if out.contains('&') {
        out = numbered(&out);
        for (entity, letter) in [("&shy;", ""), ("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
            out = out.replace(entity, letter);
        }
    }
    // Where a word may be broken.
    out.replace('\u{ad}', "")
}

/// The text with `&#233;` and `&#xE9;` as the characters they are.
fn numbered(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("&#") {
        let (before, reference) = rest.split_at(start);
        out.push_str(before);
        let end = reference.find(';').filter(|end| *end <= 10);
        let digits = end.map_or("", |end| &reference[2..end]);
        let number = digits.strip_prefix(['x', 'X']).map_or_else(|| digits.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        if let (Some(c), Some(end)) = (number.and_then(char::from_u32), end) {
            out.push(c);
            rest = &reference[end + 1..];
        } else {
            out.push_str("&#");
            rest = &reference[2..];
        }
    }
    out + rest
}

/// The words of a text.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    parted(&folded(text)).map(str::to_owned).collect()
}

/// The words of a text, with a blank between them.
#[must_use]
pub fn line(text: &str) -> String {
    let plain = folded(text);
    let mut line = String::with_capacity(plain.len());
    for word in parted(&plain) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

fn parted(plain: &str) -> impl Iterator<Item = &str> {
    plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty() && w.len() <= MAX_WORD_BYTES)
}

/// The text without case and accents, white space as single blanks.
#[must_use]
pub fn normalise(text: &str) -> String {
    let plain = folded(text);
    if plain.is_ascii() && !plain.bytes().any(|b| b.is_ascii_control()) && !plain.contains("  ") {
        return plain.trim().to_owned();
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text without case and accents.
fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).fold(String::new(), fold)
}

/// Adds a letter; those that Unicode does not take apart as people type them without their mark.
fn fold(mut text: String, c: char) -> String {
    match c {
        'ß' => text.push_str("ss"),
        'æ' => text.push_str("ae"),
        'œ' => text.push_str("oe"),
        'þ' => text.push_str("th"),
        'ø' => text.push('o'),
        'ł' => text.push('l'),
        'đ' | 'ð' => text.push('d'),
        'ı' => text.push('i'),
        'ς' => text.push('σ'),
        other => text.push(other),
    }
    text
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Text(Text),
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        match chars[at] {
            '(' => found.push((start, Token::Open)),
            ')' => found.push((start, Token::Close)),
            '"' => {
                let length = chars[at + 1..].iter().position(|c| *c == '"').ok_or_else(|| format!("the phrase at character {} has no end", start + 1))?;
                let phrase: String = chars[at + 1..at + 1 + length].iter().collect();
                found.push((start, Token::Text(Text::Phrase(words(&phrase)))));
                at += length + 1;
            }
            c if c.is_whitespace() => {}
            _ => {
                let length = chars[at..].iter().position(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"')).unwrap_or(chars.len() - at);
                let word: String = chars[at..at + length].iter().collect();
                found.extend(word_tokens(&word).into_iter().map(|t| (start, t)));
                at += length - 1;
            }
        }
        at += 1;
    }
    Ok(found)
}

fn word_tokens(word: &str) -> Vec<Token> {
    // In capitals: `do not resuscitate` is three words.
    match word {
        "AND" => return vec![Token::And],
        "OR" => return vec![Token::Or],
        "NOT" => return vec![Token::Not],
        _ => {}
    }
    let mut parts = words(word);
    if word.ends_with('*') && parts.len() == 1 {
        return parts.pop().map(|w| Token::Text(Text::Prefix(w))).into_iter().collect();
    }
    match parts.len() {
        0 => Vec::new(),
        1 => parts.pop().map(|w| Token::Text(Text::Word(w))).into_iter().collect(),
        // `blood-pressure` is two words side by side.
        _ => vec![Token::Text(Text::Phrase(parts))],
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn eat(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|(_, t)| t == token);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Text, String> {
        let mut parts = vec![self.all()?];
        while self.eat(&Token::Or) {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Text::Or))
    }

    fn all(&mut self) -> Result<Text, String> {
        let mut parts = vec![self.one()?];
        loop {
            if self.eat(&Token::And) {
                parts.push(self.one()?);
                continue;
            }
            match self.tokens.get(self.at) {
                Some((_, Token::Or | Token::Close)) | None => return Ok(one_or(parts, Text::And)),
                Some(_) => parts.push(self.one()?),
            }
        }
    }

    fn one(&mut self) -> Result<Text, String> {
        let Some((at, token)) = self.tokens.get(self.at).cloned() else { return Err("a word is missing at the end".to_owned()) };
        self.at += 1;
        match token {
            Token::Text(Text::Phrase(words)) if words.is_empty() => Err(format!("the phrase at character {} has no word", at + 1)),
            Token::Text(text) => Ok(text),
            Token::Not => Ok(Text::Not(Box::new(self.nested(Self::one)?))),
            Token::Open => {
                let inner = self.nested(Self::any)?;
                if self.eat(&Token::Close) { Ok(inner) } else { Err(format!("the '(' at character {} has no ')'", at + 1)) }
            }
            Token::Close | Token::And | Token::Or => Err(format!("a word is missing before character {}", at + 1)),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Result<Text, String>) -> Result<Text, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} conditions in one another"));
        }
        let found = parse(self)?;
        self.depth -= 1;
        Ok(found)
    }
}

fn one_or(mut parts: Vec<Text>, many: fn(Vec<Text>) -> Text) -> Text {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_decide() {
        let strings = [words("The Quick brown-fox"), words("jumps over MÜLLER")];
        for (text, expected) in [
            ("quick", true),
            ("QUICK AND fox", true),
            ("quick slow", false),
            ("slow OR muller", true),
            ("NOT slow", true),
            ("-quick", true),
            ("do not quick", false),
            ("not quick", false),
            ("\"brown fox\"", true),
            ("\"fox jumps\"", false),
            ("qui*", true),
            ("(slow OR fox) AND NOT (bear)", true),
            ("brown-fox", true),
            ("-\"brown fox\"", true),
            ("NOT (slow) quick", true),
        ] {
            assert_eq!(Text::parse(text).map(|t| t.matches(&strings)), Ok(expected), "{text}");
        }
        for bad in ["", "(", "a)", "\"a", "a AND", "OR a", "\"\"", "NOT"] {
            assert!(Text::parse(bad).is_err(), "{bad}");
        }
        assert!(Text::parse(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn case_and_accents_do_not_count() {
        for (text, expected) in [
            ("Müller", "muller"),
            ("ÉCOLE  x", "ecole x"),
            (" Ann ", "ann"),
            ("Ⅳ", "iv"),
            ("Straße ØRE", "strasse ore"),
            ("ΟΔΟΣ", "οδοσ"),
            ("οδος", "οδοσ"),
            ("李", "李"),
        ] {
            assert_eq!(normalise(text), expected);
        }
    }

    #[test]
    fn a_narrative_is_its_text() {
        let body = br#"{"resourceType":"Patient","text":{"status":"generated","div":"<div>Ann<br/>Bee &amp; <b>Cee</b></div>"},"gender":"female"}"#;
        assert_eq!(words_of(body, TextField::Narrative), [vec!["ann", "bee", "cee"]]);
        assert_eq!(words_of(body, TextField::Content).concat(), ["ann", "bee", "cee", "female", "generated"]);
        let inline = "{\"text\":{\"div\":\"<div>hyper<b>tension</b>, H<sub class='x'>2</sub>O<p>non&shy;sense</p>a<br/>b so\u{ad}rt</div>\"}}";
        assert_eq!(words_of(inline.as_bytes(), TextField::Narrative).concat(), ["hypertension", "h2o", "nonsense", "a", "b", "sort"]);
        let numbers = br#"{"text":{"div":"<div>caf&#233; &#xE9;lan &#; &#99999999; &lt;</div>"}}"#;
        assert_eq!(words_of(numbers, TextField::Narrative).concat(), ["cafe", "elan", "99999999"]);
    }
}
