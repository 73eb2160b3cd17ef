//! An XML text as tags and text, each proven: names, attributes, references, namespaces. The library underneath leaves most
//! of that to its users; what it lets pass would otherwise be stored, and served as XML that nobody else can read.

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::NsReader;
use quick_xml::errors::Error;
use quick_xml::events::attributes::{AttrError, Attributes};
use quick_xml::events::{BytesDecl, Event};
use quick_xml::name::{PrefixDeclaration, QName, ResolveResult};

use super::super::Failure;
use super::super::id::clip;
use super::{FHIR_NAMESPACE, SCHEMA_INSTANCE_NAMESPACE, XHTML_NAMESPACE, characters, malformed};

/// A piece of the text.
pub enum Token<'x> {
    /// A start tag, or an empty element.
    Start(Tag<'x>),
    /// An end tag.
    End,
    /// Character data; blank is what is white space and nothing else.
    Text {
        /// Whether there is nothing but white space.
        is_blank: bool,
    },
    /// The end of the whole.
    Eof,
}

/// A start tag.
pub struct Tag<'x> {
    /// The name as it stands, with a prefix if it has one.
    pub qualified: &'x str,
    /// The name without a prefix.
    pub name: &'x str,
    /// The namespace it is in.
    pub namespace: Namespace,
    /// All attributes, declarations of namespaces too.
    pub attributes: Vec<Attribute<'x>>,
    /// Whether it is the whole element.
    pub is_empty: bool,
}

/// An attribute.
pub struct Attribute<'x> {
    /// The name as it stands, with a prefix if it has one.
    pub name: &'x str,
    /// Its value, references resolved.
    pub value: Cow<'x, str>,
    /// Where it stands.
    pub at: usize,
    /// Whether it speaks about schemas only.
    pub is_schema_instance: bool,
}

/// The namespaces that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// FHIR's.
    Fhir,
    /// That of narratives.
    Xhtml,
    /// None.
    None,
    /// Another.
    Other(String),
}

/// Reads one token after the other.
pub struct Tokens<'x> {
    text: &'x str,
    reader: NsReader<&'x [u8]>,
}

impl<'x> Tokens<'x> {
    /// Begins a text.
    ///
    /// # Errors
    /// The text holds a character that XML cannot.
    pub fn new(text: &'x str) -> Result<Self, Failure> {
        if let Some((at, c)) = characters::find_forbidden(text) {
            return Err(malformed(text, at, format_args!("the character U+{:04X} cannot be in XML", u32::from(c))));
        }
        let mut reader = NsReader::from_str(text);
        reader.config_mut().check_comments = true;
        Ok(Self { text, reader })
    }

    /// The next token and where it stands. Comments, processing instructions and the declaration are left out.
    ///
    /// # Errors
    /// Not well-formed; a document type.
    pub fn next(&mut self) -> Result<(Token<'x>, Range<usize>), Failure> {
        loop {
            let start = self.position();
            let event = self.reader.read_event().map_err(|e| self.unreadable(start, &e))?;
            let span = start..self.position();
            let token = match event {
                Event::Start(_) => Token::Start(self.tag(&span, false)?),
                Event::Empty(_) => Token::Start(self.tag(&span, true)?),
                Event::End(_) => Token::End,
                Event::Text(text) => self.characters(&text, &span)?,
                Event::CData(data) => Token::Text { is_blank: characters::is_space(&data) },
                Event::GeneralRef(name) => {
                    characters::reference(&name).map_err(|why| self.wrong(start, why))?;
                    Token::Text { is_blank: false }
                }
                Event::DocType(_) => return Err(self.wrong(start, "a document type (DOCTYPE) is not accepted")),
                Event::Decl(declaration) => {
                    self.declaration(&declaration, start)?;
                    continue;
                }
                Event::PI(instruction) => {
                    self.instruction(instruction.target(), start)?;
                    continue;
                }
                Event::Comment(_) => continue,
                Event::Eof => Token::Eof,
            };
            return Ok((token, span));
        }
    }

    /// The prefixes that are declared where it is, and their namespaces, as they stand.
    #[must_use]
    pub fn prefixes(&self) -> Vec<(String, String)> {
        let named = |(prefix, namespace): (PrefixDeclaration<'_>, quick_xml::name::Namespace<'_>)| match prefix {
            PrefixDeclaration::Named(prefix) => Some((prefix.to_owned(), namespace.0.to_owned())),
            PrefixDeclaration::Default => None,
        };
        self.reader.resolver().bindings().filter_map(named).collect()
    }

    /// The refusal of what stands at `offset`.
    pub fn wrong(&self, offset: usize, what: impl std::fmt::Display) -> Failure {
        malformed(self.text, offset, what)
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(self.text.len())
    }

    fn unreadable(&self, start: usize, error: &Error) -> Failure {
        // The library knows the place better where the text ends too early.
        let offset = match error {
            Error::Syntax(_) | Error::IllFormed(_) => usize::try_from(self.reader.error_position()).unwrap_or(start),
            _ => start,
        };
        self.wrong(offset, error)
    }

    fn tag(&self, span: &Range<usize>, is_empty: bool) -> Result<Tag<'x>, Failure> {
        let text: &'x str = self.text;
        let content_at = span.start + 1;
        let content = text.get(content_at..span.end - if is_empty { 2 } else { 1 }).unwrap_or_default();
        let end = content.find([' ', '\t', '\n', '\r']).unwrap_or(content.len());
        let qualified = &content[..end];
        if !characters::is_qualified_name(qualified) {
            return Err(self.wrong(span.start, format_args!("'{}' is no name of an element", clip(qualified))));
        }
        let mut attributes = Vec::new();
        for found in Attributes::new(content, end) {
            let found = found.map_err(|e| self.wrong(content_at + place(&e), plain(&e)))?;
            let QName(name) = found.key;
            // The library's names are parts of `content`; where in it, it does not say, and its values hide that they are too.
            let begins = name.as_ptr().addr().saturating_sub(content.as_ptr().addr());
            let at = content_at + begins;
            let rest = content.get(begins + name.len()..).unwrap_or_default();
            let quoted = rest.find(['"', '\'']).and_then(|quote| rest.get(quote + 1..)).unwrap_or_default();
            let raw = quoted.get(..found.value.len()).unwrap_or_default();
            if !content.get(..begins).is_some_and(|before| before.ends_with([' ', '\t', '\n', '\r'])) {
                return Err(self.wrong(at, "white space is missing before an attribute"));
            }
            if !characters::is_qualified_name(name) {
                return Err(self.wrong(at, format_args!("'{}' is no name of an attribute", clip(name))));
            }
            let value_at = content_at + content.len() - quoted.len();
            let value = characters::unescape(raw).map_err(|(offset, why)| self.wrong(value_at + offset, why))?;
            let is_schema_instance = name.contains(':') && self.is_schema_instance(name, at)?;
            attributes.push(Attribute { name, value, at, is_schema_instance });
        }
        let namespace = match self.reader.resolver().resolve_element(QName(qualified)).0 {
            ResolveResult::Unbound => Namespace::None,
            ResolveResult::Bound(quick_xml::name::Namespace(name)) => match name {
                FHIR_NAMESPACE => Namespace::Fhir,
                XHTML_NAMESPACE => Namespace::Xhtml,
                "" => Namespace::None,
                other => Namespace::Other(other.to_owned()),
            },
            ResolveResult::Unknown(prefix) => return Err(self.undeclared(&prefix, span.start)),
        };
        let name = qualified.split_once(':').map_or(qualified, |(_, local)| local);
        Ok(Tag { qualified, name, namespace, attributes, is_empty })
    }

    fn is_schema_instance(&self, name: &str, at: usize) -> Result<bool, Failure> {
        match self.reader.resolver().resolve_attribute(QName(name)).0 {
            ResolveResult::Bound(quick_xml::name::Namespace(namespace)) => Ok(namespace == SCHEMA_INSTANCE_NAMESPACE),
            ResolveResult::Unbound => Ok(false),
            ResolveResult::Unknown(prefix) => Err(self.undeclared(&prefix, at)),
        }
    }

    fn undeclared(&self, prefix: &str, at: usize) -> Failure {
        self.wrong(at, format_args!("the prefix '{}' is declared nowhere", clip(prefix)))
    }

    fn characters(&self, text: &str, span: &Range<usize>) -> Result<Token<'x>, Failure> {
        if let Some(at) = text.find("]]>") {
            return Err(self.wrong(span.start + at, "']]>' must be written ]]&gt;"));
        }
        Ok(Token::Text { is_blank: characters::is_space(text) })
    }

    fn instruction(&self, target: &str, start: usize) -> Result<(), Failure> {
        if !characters::is_name(target) || target.eq_ignore_ascii_case("xml") {
            return Err(self.wrong(start, format_args!("'{}' is no name of a processing instruction", clip(target))));
        }
        Ok(())
    }

    fn declaration(&self, declaration: &BytesDecl<'_>, start: usize) -> Result<(), Failure> {
        if start != 0 {
            return Err(self.wrong(start, "an XML declaration must be the first of all"));
        }
        if declaration.version().map_err(|e| self.unreadable(start, &e))? != "1.0" {
            return Err(self.wrong(start, "only version 1.0 of XML is understood"));
        }
        match declaration.encoding() {
            Some(Err(e)) => Err(self.wrong(start + 2 + place(&e), plain(&e))),
            Some(Ok(name)) if !name.eq_ignore_ascii_case("UTF-8") && !name.eq_ignore_ascii_case("US-ASCII") => {
                Err(self.wrong(start, format_args!("the encoding '{}' is not understood; send UTF-8", clip(&name))))
            }
            _ => Ok(()),
        }
    }
}

/// Where in the tag an attribute is wrong.
fn place(error: &AttrError) -> usize {
    match *error {
        AttrError::ExpectedEq(at)
        | AttrError::ExpectedValue(at)
        | AttrError::UnquotedValue(at)
        | AttrError::ExpectedQuote(at, _)
        | AttrError::Duplicated(at, _) => at,
    }
}

/// The error without the library's count of bytes, which begins in the middle of the text.
fn plain(error: &AttrError) -> &'static str {
    match error {
        AttrError::ExpectedEq(_) => "'=' is missing after an attribute's name",
        AttrError::ExpectedValue(_) => "an attribute's value is missing",
        AttrError::UnquotedValue(_) => "an attribute's value must be in quotes",
        AttrError::ExpectedQuote(..) => "the quote that ends an attribute's value is missing",
        AttrError::Duplicated(..) => "an attribute is there twice",
    }
}
