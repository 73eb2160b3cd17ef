//! From the text of an expression to what is evaluated, with the types that each step can yield.

use serde_json::Value;

use super::{BadPath, Edge, Expr, Ty};
use crate::fhir::Definitions;

pub struct Parser<'t> {
    pub text: &'t str,
    pub at: usize,
    pub definitions: &'static Definitions,
    pub root: Ty,
    /// Where the first name stands that is of no element.
    pub nowhere: Option<usize>,
}

pub type Typed = (Expr, Vec<Ty>);

impl Parser<'_> {
    pub fn error(&self, reason: &str) -> BadPath {
        BadPath { at: self.at, reason: reason.to_owned() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    pub fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), BadPath> {
        if self.eat(token) { Ok(()) } else { Err(self.error(&format!("expected '{token}'"))) }
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let found = self.rest().strip_prefix(word).is_some_and(|after| after.starts_with([' ', '(']));
        if found {
            self.at += word.len();
        }
        found
    }

    fn name(&mut self) -> Result<String, BadPath> {
        self.space();
        let length = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.error("expected a name"));
        }
        let name = self.rest()[..length].to_owned();
        self.at += length;
        Ok(name)
    }

    fn string(&mut self) -> Result<String, BadPath> {
        self.expect("'")?;
        let mut text = String::new();
        let mut rest = self.rest().char_indices();
        while let Some((at, c)) = rest.next() {
            match c {
                '\'' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                // <https://hl7.org/fhirpath/#string>
                '\\' => match rest.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'f')) => text.push('\u{c}'),
                    Some((_, 'u')) => {
                        let code: String = rest.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let is_code = code.len() == 4 && code.bytes().all(|b| b.is_ascii_hexdigit());
                        let found = u32::from_str_radix(&code, 16).ok().filter(|_| is_code).and_then(char::from_u32);
                        text.push(found.ok_or_else(|| self.error("expected four hexadecimal digits of a character after \\u in a string"))?);
                    }
                    Some((_, c @ ('\'' | '"' | '`' | '\\' | '/'))) => text.push(c),
                    _ => return Err(self.error("a backslash in a string begins none of \\' \\\" \\` \\\\ \\/ \\n \\r \\t \\f \\u")),
                },
                _ => text.push(c),
            }
        }
        Err(self.error("unfinished string"))
    }

    fn type_name(&mut self) -> Result<&'static str, BadPath> {
        let start = self.at;
        let mut name = self.name()?;
        if name == "FHIR" || name == "System" {
            self.expect(".")?;
            name = self.name()?;
        }
        // STU3 writes `DateTime` and `Uri` for the primitives.
        let lower = name[..1].to_lowercase() + &name[1..];
        let found = self.definitions.type_def(&name).or_else(|| self.definitions.type_def(&lower));
        found.map(|t| t.name).ok_or_else(|| BadPath { at: start, reason: format!("unknown type '{name}'") })
    }

    pub fn expression(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        let (mut left, mut types) = self.comparison(input)?;
        while self.keyword("and") {
            let (right, _) = self.comparison(input)?;
            left = Expr::And(Box::new(left), Box::new(right));
            types = vec![Ty::named("boolean")];
        }
        Ok((left, types))
    }

    fn comparison(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        let (left, types) = self.union(input)?;
        let wanted = if self.eat("!=") {
            false
        } else if self.eat("=") {
            true
        } else {
            return Ok((left, types));
        };
        let (right, _) = self.union(input)?;
        Ok((Expr::Equal(Box::new(left), Box::new(right), wanted), vec![Ty::named("boolean")]))
    }

    fn union(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        let mut parts = Vec::new();
        let mut types = Vec::new();
        loop {
            let (part, part_types) = self.typed(input)?;
            match part {
                Expr::Union(inner) => parts.extend(inner),
                other => parts.push(other),
            }
            types.extend(part_types);
            if !self.eat("|") {
                break;
            }
        }
        Ok((if parts.len() == 1 { parts.remove(0) } else { Expr::Union(parts) }, types))
    }

    fn typed(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        let mut left = self.chain(input)?;
        loop {
            if self.keyword("as") {
                let name = self.type_name()?;
                left = self.of_type(left, name);
            } else if self.keyword("is") {
                let name = self.type_name()?;
                left = (Expr::Is(Box::new(left.0), name), vec![Ty::named("boolean")]);
            } else {
                return Ok(left);
            }
        }
    }

    fn chain(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        self.space();
        let mut left = match self.rest().chars().next() {
            Some('(') => {
                self.at += 1;
                let inner = self.expression(input)?;
                self.expect(")")?;
                inner
            }
            Some('\'') => (Expr::Literal(Value::String(self.string()?)), vec![Ty::named("string")]),
            Some('$') => {
                self.expect("$this")?;
                (Expr::Input, input.to_vec())
            }
            Some('%') => {
                self.expect("%resource")?;
                (Expr::Resource, vec![self.root])
            }
            Some(_) => self.first_step(input)?,
            None => return Err(self.error("unexpected end")),
        };
        loop {
            if self.eat(".") {
                left = self.step(left)?;
            } else if self.eat("[") {
                let n = self.name()?.parse().map_err(|_| self.error("expected a number"))?;
                self.expect("]")?;
                left = (Expr::Nth(Box::new(left.0), n), left.1);
            } else {
                return Ok(left);
            }
        }
    }

    /// A path's first name: a type (`Patient.name`), a literal, or a member of the input.
    fn first_step(&mut self, input: &[Ty]) -> Result<Typed, BadPath> {
        let start = self.at;
        let name = self.name()?;
        if let Some(literal) = ["true", "false"].iter().find(|l| **l == name) {
            return Ok((Expr::Literal(Value::Bool(*literal == "true")), vec![Ty::named("boolean")]));
        }
        let is_type = name.starts_with(|c: char| c.is_ascii_uppercase()) && self.definitions.type_def(&name).is_some();
        if is_type {
            let own = self.definitions.is_a(self.root.base, &name);
            return Ok(if own { (Expr::Input, vec![self.root]) } else { (Expr::Union(Vec::new()), Vec::new()) });
        }
        self.at = start;
        self.step((Expr::Input, input.to_vec()))
    }

    fn step(&mut self, (left, types): Typed) -> Result<Typed, BadPath> {
        let start = self.at;
        let name = self.name()?;
        if !self.eat("(") {
            let (found, reached) = self.member(left, &types, &name);
            // What may be anything may have any member.
            let is_open = |t: &Ty| t.path.is_empty() && matches!(t.base, "Resource" | "DomainResource" | "Element" | "BackboneElement");
            if reached.is_empty() && !types.is_empty() && !types.iter().any(is_open) {
                self.nowhere.get_or_insert(start);
            }
            return Ok((found, reached));
        }
        let boxed = Box::new;
        let truth = || vec![Ty::named("boolean")];
        let made = match name.as_str() {
            "as" | "ofType" => {
                let name = self.type_name()?;
                self.of_type((left, types), name)
            }
            "is" => (Expr::Is(boxed(left), self.type_name()?), truth()),
            "where" => {
                let (condition, _) = self.expression(&types)?;
                (Expr::Where(boxed(left), boxed(condition)), types)
            }
            "exists" => {
                self.space();
                let inner = if self.rest().starts_with(')') { left } else { Expr::Where(boxed(left), boxed(self.expression(&types)?.0)) };
                (Expr::Exists(boxed(inner)), truth())
            }
            "first" => (Expr::Nth(boxed(left), 0), types),
            "resolve" => (Expr::Resolve(boxed(left)), types),
            "extension" => (Expr::Extension(boxed(left), self.string()?), vec![Ty::named("Extension")]),
            "hasExtension" => (Expr::Exists(boxed(Expr::Extension(boxed(left), self.string()?))), truth()),
            other => return Err(BadPath { at: start, reason: format!("function '{other}' is not supported") }),
        };
        self.expect(")")?;
        Ok(made)
    }

    fn member(&self, left: Expr, types: &[Ty], name: &str) -> Typed {
        let mut edges: Vec<Edge> = Vec::new();
        for ty in types {
            for edge in edges_of(self.definitions, *ty, name) {
                if !edges.iter().any(|e| e.from == edge.from && e.key == edge.key) {
                    edges.push(edge);
                }
            }
        }
        let mut reached: Vec<Ty> = Vec::new();
        for edge in &edges {
            if !reached.contains(&edge.to) {
                reached.push(edge.to);
            }
        }
        if edges.is_empty() {
            return (Expr::Union(Vec::new()), Vec::new());
        }
        (Expr::Get(Box::new(left), edges), reached)
    }

    fn of_type(&self, (left, types): Typed, name: &'static str) -> Typed {
        let kept = |ty: &Ty| ty.base == "Resource" || (ty.path.is_empty() && self.definitions.is_a(ty.base, name));
        let mut types: Vec<Ty> = types.into_iter().filter(kept).collect();
        if types.iter().any(|t| t.base == "Resource") {
            types = vec![Ty::named(name)];
        }
        match left {
            // A choice: only the member of that type is looked at.
            Expr::Get(inner, edges) if edges.iter().all(|e| e.to.base != "Resource") => {
                (Expr::Get(inner, edges.into_iter().filter(|e| kept(&e.to)).collect()), types)
            }
            other => (Expr::OfType(Box::new(other), name), types),
        }
    }
}

/// The members that `name` means on values of type `ty`: one, or one for each type of a choice.
fn edges_of(definitions: &'static Definitions, ty: Ty, name: &str) -> Vec<Edge> {
    let Some(def) = definitions.type_def(ty.base) else { return Vec::new() };
    let full = if ty.path.is_empty() { name.to_owned() } else { format!("{}.{name}", ty.path) };
    if let Some(element) = def.element(&full) {
        let edge = |to| Edge { from: ty, key: name.to_owned(), sibling: sibling(definitions, to, name), to, codes: element.codes };
        if let Some(path) = element.types.strip_prefix('#') {
            return vec![edge(Ty { base: ty.base, path })];
        }
        if matches!(element.types, "BackboneElement" | "Element") {
            return vec![edge(Ty { base: ty.base, path: element.path })];
        }
        return vec![edge(Ty::named(element.types))];
    }
    let Some(choice) = def.element(&format!("{full}[x]")) else {
        // A resource within another: its type shows when it is there.
        let all = if ty == Ty::named("Resource") { definitions.resource_types() } else { &[] };
        return all.iter().flat_map(|resource| edges_of(definitions, Ty::named(resource), name)).collect();
    };
    let edge = |to: &'static str| {
        let key = format!("{name}{}{}", to[..1].to_uppercase(), &to[1..]);
        Edge { from: ty, sibling: sibling(definitions, Ty::named(to), &key), key, to: Ty::named(to), codes: None }
    };
    choice.types.split('|').map(edge).collect()
}

fn sibling(definitions: &'static Definitions, ty: Ty, key: &str) -> Option<String> {
    (ty.path.is_empty() && definitions.is_primitive(ty.base)).then(|| format!("_{key}"))
}
