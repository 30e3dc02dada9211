//! Shell quoting.

use std::path::Path;

/// A word that a shell reads back as exactly this text. Control characters are written as escapes,
/// so that showing a command on a terminal cannot move its cursor.
pub(super) fn quote(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_./:=,+@%-".contains(&b);
    if !text.is_empty() && text.bytes().all(safe) {
        return text.to_owned();
    }
    if !text.contains(char::is_control) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => word.extend(['\\', c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for b in c.encode_utf8(&mut bytes).bytes() {
                    word.push_str(&format!("\\x{b:02x}"));
                }
            }
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

/// A path as one word.
pub(super) fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A container path below the directory where the root is built.
pub(super) fn in_root(path: &Path) -> String {
    format!("\"$ROOT\"{}", quote_path(path))
}

/// Several words as one command.
pub(super) fn join<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    words
        .into_iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for (text, word) in [
            ("/a/b-c_d.e", "/a/b-c_d.e"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME;`x`", "'$HOME;`x`'"),
            ("a\nb'\\\u{1b}", r"$'a\x0ab\'\\\x1b'"),
        ] {
            assert_eq!(quote(text), word);
        }
    }

    #[test]
    fn a_shell_reads_words_back() {
        for text in [
            "a b",
            "it's",
            "$HOME",
            "a\nb\t'\\\u{1b}[31m",
            "ü\u{85}",
            "*",
            "~",
            "!x",
            "-n",
        ] {
            let script = format!("printf %s {}", quote(text));
            let out = std::process::Command::new("bash")
                .args(["-c", &script])
                .output()
                .unwrap();
            let expected = if text == "-n" { "-n" } else { text };
            assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
        }
    }
}
