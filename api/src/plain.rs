//! Text for a terminal that does nothing but be read.

/// Whether a terminal may do something else than to show it: control characters, separators of lines and of paragraphs, and
/// marks that turn the direction of what follows.
pub(crate) fn controls(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which nothing moves the cursor or changes a terminal: such characters stand as `\uXXXX`, but for ends of
/// lines and tabs. Names and messages may come from a guest. In JSON the escapes mean the same as what they stand for.
#[must_use]
pub fn plain(text: &str) -> String {
    escaped(text, |c| controls(c) && c != '\n' && c != '\t')
}

/// The same of what stays on its line: a cell of a table, JSON of one line.
pub(crate) fn plain_line(text: &str) -> String {
    escaped(text, controls)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            plain.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        let nasty = "a\u{1b}[2Jb\rc\u{9b}31m\u{7f}\n\tä";
        assert_eq!(plain(nasty), "a\\u001b[2Jb\\u000dc\\u009b31m\\u007f\n\tä");
        assert_eq!(plain_line("x\ny\t"), "x\\u000ay\\u0009");
        let turned = "a\u{202e}b\u{2066}c\u{2028}";
        assert_eq!(plain(turned), "a\\u202eb\\u2066c\\u2028");
        assert_eq!(plain_line(turned), plain(turned));
        let json = serde_json::json!({ "name": nasty }).to_string();
        let read: serde_json::Value = serde_json::from_str(&plain(&json)).expect("JSON");
        assert_eq!(read["name"], nasty, "JSON stays what it was");
    }
}
