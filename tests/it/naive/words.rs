//! `_text` and `_content`: words with `AND`, `OR`, `NOT` and parentheses, phrases, and beginnings of words.

use serde_json::Value;

use super::string;

/// Whether the narrative (`_text`) or any string (`_content`) has the words.
pub fn matches(resource: &Value, key: &str, wanted: &str) -> bool {
    let mut texts = Vec::new();
    if key == "_text" {
        texts.extend(resource["text"]["div"].as_str().map(without_tags));
    } else {
        collect(resource, &mut texts);
    }
    let texts: Vec<Vec<String>> = texts.iter().map(|text| string::words(text)).collect();
    let tokens = tokens(wanted);
    let mut parse = Parse { tokens: &tokens, texts: &texts };
    let answer = parse.any();
    assert!(parse.tokens.is_empty(), "{wanted}");
    answer
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(without_tags(text)),
        Value::Array(all) => all.iter().for_each(|inner| collect(inner, texts)),
        Value::Object(members) => members.values().for_each(|inner| collect(inner, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a reader sees.
fn without_tags(markup: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in markup.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => text.push(c),
            _ => {}
        }
        if c == '>' {
            text.push(' ');
        }
    }
    text.replace("&amp;", "&").replace("&#233;", "é")
}

/// Words, phrases with their quotes, and parentheses.
pub fn tokens(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' | ')' if !quoted => all.extend([c.to_string(), String::new()]),
            ' ' if !quoted => all.push(String::new()),
            _ => {}
        }
        if quoted || !"() ".contains(c) {
            all.last_mut().unwrap().push(c);
        }
    }
    all.retain(|token| !token.is_empty());
    all
}

struct Parse<'t> {
    tokens: &'t [String],
    texts: &'t [Vec<String>],
}

impl Parse<'_> {
    fn take(&mut self, wanted: &str) -> bool {
        let there = self.tokens.first().is_some_and(|token| token == wanted);
        self.tokens = &self.tokens[usize::from(there)..];
        there
    }

    fn any(&mut self) -> bool {
        let mut answer = self.all();
        while self.take("OR") {
            answer |= self.all();
        }
        answer
    }

    fn all(&mut self) -> bool {
        let mut answer = self.not();
        while self.take("AND") {
            answer &= self.not();
        }
        answer
    }

    fn not(&mut self) -> bool {
        if self.take("NOT") {
            return !self.not();
        }
        if self.take("(") {
            let answer = self.any();
            assert!(self.take(")"));
            return answer;
        }
        let (token, rest) = self.tokens.split_first().unwrap();
        self.tokens = rest;
        self.texts.iter().any(|words| has(words, token))
    }
}

/// A phrase is in one text, word by word; a beginning ends with `*`.
fn has(words: &[String], token: &str) -> bool {
    let wanted = string::words(token);
    match token.strip_suffix('*') {
        Some(_) => words.iter().any(|word| word.starts_with(&wanted[0])),
        None => words.windows(wanted.len()).any(|window| window == wanted),
    }
}
