//! Nothing that a container chose moves the reader's cursor: control characters are shown, not
//! sent, to a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// C0, DEL, C1, and the invisible characters that turn or break a line of text.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn show(out: &mut String, c: char) {
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Text for one cell or one sentence.
pub fn text(s: &str) -> Cow<'_, str> {
    if !s.contains(is_hostile) {
        return Cow::Borrowed(s);
    }
    let mut out = String::with_capacity(s.len() + 8);
    for c in s.chars() {
        if is_hostile(c) {
            show(&mut out, c)
        } else {
            out.push(c)
        }
    }
    Cow::Owned(out)
}

/// A piece of a log for a terminal: newlines (also after a carriage return) and tabs stay, bytes
/// that are no UTF-8 become U+FFFD.
pub fn log(data: &[u8]) -> String {
    let decoded = String::from_utf8_lossy(data);
    let mut out = String::with_capacity(decoded.len());
    let mut chars = decoded.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if chars.peek() == Some(&'\n') => out.push(c),
            c if is_hostile(c) => show(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown() {
        assert_eq!(
            text("a\x1b[2Jb\u{9b}c\u{202e}d\ne"),
            "a\\x1b[2Jb\\x9bc\\u{202e}d\\ne"
        );
        assert_eq!(
            log(b"a\x1b[2Jb\x9b\tc\r\nd\re\n"),
            "a\\x1b[2Jb\u{fffd}\tc\r\nd\\re\n"
        );
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        assert!(matches!(text("Größe 大"), Cow::Borrowed("Größe 大")));
        assert_eq!(log("Größe 大\n".as_bytes()), "Größe 大\n");
    }
}
