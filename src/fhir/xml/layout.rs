//! XML as a person reads it: in pieces, each on a line of its own.

use super::super::raw::MAX_INDENT;

/// A piece of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'x> {
    /// A tag that begins an element.
    Opens(&'x str),
    /// A tag that ends one.
    Closes(&'x str),
    /// What has nothing in it, a whole narrative, or text.
    Stands(&'x str),
}

/// The pieces of a document, without the white space between them. What is not well-formed has some, too.
pub fn pieces(xml: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = xml.trim_ascii();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_narrative = rest.starts_with("<div ") || rest.starts_with("<div>");
        let length = match rest.find('<') {
            Some(0) if is_narrative => narrative_length(rest),
            Some(0) => tag_length(rest),
            found => found.unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at(length);
        rest = after.trim_ascii_start();
        let stands = is_narrative || !piece.starts_with('<') || piece.starts_with("<?") || piece.starts_with("<!") || piece.ends_with("/>");
        Some(match piece {
            _ if stands => Piece::Stands(piece.trim_ascii_end()),
            _ if piece.starts_with("</") => Piece::Closes(piece),
            _ => Piece::Opens(piece),
        })
    })
}

/// A document laid out for a person: elements on lines of their own; the narrative stays as it is.
#[must_use]
pub fn pretty(xml: &str) -> String {
    let mut out = String::with_capacity(xml.len() * 2);
    let mut depth = 0_usize;
    for piece in pieces(xml) {
        if matches!(piece, Piece::Closes(_)) {
            depth = depth.saturating_sub(1);
        }
        let (Piece::Opens(text) | Piece::Closes(text) | Piece::Stands(text)) = piece;
        out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
        out.push_str(text);
        out.push('\n');
        depth += usize::from(matches!(piece, Piece::Opens(_)));
    }
    out
}

/// How far a tag goes, or a comment, at the beginning of a text.
fn tag_length(text: &str) -> usize {
    let end = if text.starts_with("<!--") { "-->" } else { ">" };
    text.find(end).map_or(text.len(), |at| at + end.len())
}

/// How far a `div` goes, and all in it.
fn narrative_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(start) = text[at..].find('<').map(|offset| at + offset) {
        let end = start + tag_length(&text[start..]);
        match &text[start..end] {
            tag if tag.starts_with("<!") || tag.starts_with("<?") || tag.ends_with("/>") => {}
            tag if tag.starts_with("</") => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
        at = end;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{Piece, pieces, pretty};

    #[test]
    fn a_document_comes_in_pieces_whatever_it_is() {
        let text = "<?xml version=\"1.0\"?>\n<!-- a > b -->\n<P>\n <id value=\"1\"/>\n <text><div><p>a <b>c</b></p>\n</div></text> stray </P>";
        let expected =
            "<?xml version=\"1.0\"?>\n<!-- a > b -->\n<P>\n  <id value=\"1\"/>\n  <text>\n    <div><p>a <b>c</b></p>\n</div>\n  </text>\n  stray\n</P>\n";
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty(expected), expected);
        for hostile in ["", "<", "<div>", "</a></a><b", "é<é>", "<!--", "<!-->", "<a><"] {
            assert_eq!(pieces(hostile).map(|(Piece::Opens(t) | Piece::Closes(t) | Piece::Stands(t))| t).collect::<String>(), hostile);
        }
    }
}
