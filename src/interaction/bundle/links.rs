//! The links in narratives and in Markdown: where their targets stand.

use std::borrow::Cow;
use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag};
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event as Xml;
use quick_xml::events::attributes::Attributes;

/// Where a target stands, and what it is. An autolink of Markdown stands with its angle brackets: without a scheme it would be
/// none, <https://spec.commonmark.org/0.31.2/#autolinks>.
pub type Link<'t> = (Range<usize>, Cow<'t, str>);

/// The `href`s and `src`s of XHTML, as far as it is well-formed enough to tell.
pub fn in_xhtml(text: &str) -> Vec<Link<'_>> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    (config.check_end_names, config.allow_unmatched_ends, config.allow_dangling_amp) = (false, true, true);
    let mut found = Vec::new();
    loop {
        let position = |reader: &Reader<&[u8]>| usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let start = position(&reader);
        match reader.read_event() {
            Ok(Xml::Start(_) | Xml::Empty(_)) => targets(text, start + 1..position(&reader).saturating_sub(1), &mut found),
            Ok(Xml::Eof) | Err(_) => return found,
            Ok(_) => {}
        }
    }
}

/// The targets in a tag, without its angle brackets.
fn targets<'t>(text: &'t str, span: Range<usize>, found: &mut Vec<Link<'t>>) {
    let tag = text.get(span.clone()).unwrap_or_default();
    let name = tag.find(|c: char| c.is_ascii_whitespace()).unwrap_or(tag.len());
    for attribute in Attributes::new(tag, name).with_checks(false).flatten() {
        let key = attribute.key.0;
        // The library tells parts of `tag`, but not where they are.
        let after = key.as_ptr().addr() - tag.as_ptr().addr() + key.len();
        let Some(quote) = tag[after..].find(['"', '\'']).map(|at| after + at).filter(|_| matches!(key, "href" | "src")) else { continue };
        let Some(length) = tag[quote + 1..].find(char::from(tag.as_bytes()[quote])) else { continue };
        let target = quote + 1..quote + 1 + length;
        if let Ok(value) = unescape(&tag[target.clone()]) {
            found.push((span.start + target.start..span.start + target.end, value));
        }
    }
}

/// The targets of the links and images of Markdown, those of HTML in it, too.
pub fn in_markdown(text: &str) -> Vec<Link<'_>> {
    let parser = Parser::new(text);
    let definitions = parser.reference_definitions().iter().filter_map(|(_, def)| standing(text, &def.span, &def.dest, "]:"));
    let mut found: Vec<Link<'_>> = definitions.collect();
    for (event, span) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                let whole = &text[span.clone()];
                if whole.strip_prefix('<').and_then(|w| w.strip_suffix('>')) == Some(&*dest_url) {
                    found.push((span.clone(), Cow::from(&text[span.start + 1..span.end - 1])));
                } else {
                    found.extend(standing(text, &span, &dest_url, "]("));
                }
            }
            Event::Html(_) | Event::InlineHtml(_) => {
                found.extend(in_xhtml(&text[span.clone()]).into_iter().map(|(at, target)| (span.start + at.start..span.start + at.end, target)));
            }
            Event::Start(_)
            | Event::End(_)
            | Event::Text(_)
            | Event::Code(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_)
            | Event::SoftBreak
            | Event::HardBreak
            | Event::Rule
            | Event::TaskListMarker(_) => {}
        }
    }
    found.sort_by_key(|(at, _)| at.start);
    found.dedup_by_key(|(at, _)| at.start);
    found
}

/// Where `target` stands in a link, behind `before`, blanks and an angle bracket; if it stands there as it is.
fn standing<'t>(text: &'t str, link: &Range<usize>, target: &str, before: &str) -> Option<Link<'t>> {
    let within = text.get(link.clone())?;
    let starts = within.match_indices(before).map(|(at, found)| {
        let rest = &within[at + found.len()..];
        within.len() - rest.trim_start().trim_start_matches('<').len()
    });
    let at = starts.into_iter().find(|at| !target.is_empty() && within[*at..].starts_with(target))?;
    let span = link.start + at..link.start + at + target.len();
    Some((span.clone(), Cow::from(&text[span])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: Vec<Link<'_>>) -> Vec<String> {
        found.into_iter().map(|(_, target)| target.into_owned()).collect()
    }

    #[test]
    fn targets_of_xhtml_are_found_where_they_are_targets() {
        for (text, expected) in [
            (r#"<div><a href="U">x</a><img src='V'/></div>"#, vec!["U", "V"]),
            ("<div><a\n href = \"U?a=1&amp;b\" class='href=\"N\"'>x</a></div>", vec!["U?a=1&b"]),
            (r#"<p>text says href="N"</p><a data-href="N" title='src="N"'>&nbsp;</a><!-- <a href="N"/> -->"#, vec![]),
            ("<a href=U>x</a><a href='V", vec![]),
            ("a < b & c", vec![]),
        ] {
            let found = in_xhtml(text);
            for (at, _) in &found {
                assert!(text[at.clone()].starts_with(['U', 'V']), "{text}");
            }
            assert_eq!(shown(found), expected, "{text}");
        }
    }

    #[test]
    fn targets_of_markdown_are_found_where_they_are_targets() {
        for (text, expected) in [
            ("see [c](U) and ![d]( <V> \"U\"), <urn:uuid:U>", vec!["U", "V", "urn:uuid:U"]),
            ("[a][1] [1]\n\n[1]: U \"t\"\n", vec!["U"]),
            ("`[c](N)`\n\n```\n[c](N)\n```\n\n    [c](N)", vec![]),
            ("an <a href=\"U\">x</a> and\n\n<div><img src='V'/></div>", vec!["U", "V"]),
            ("[`](N)`](U)", vec!["U"]),
            ("[c](", vec![]),
        ] {
            let found = in_markdown(text);
            for (at, target) in &found {
                assert_eq!(text[at.clone()].trim_matches(['<', '>']), &**target, "{text}");
            }
            assert_eq!(shown(found), expected, "{text}");
        }
    }
}
