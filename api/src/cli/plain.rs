//! Text for a terminal that does nothing but be read.

/// A text in which nothing moves the cursor or changes a terminal: control characters stand as `\uXXXX`, but for ends of
/// lines and tabs. Names and messages may come from a guest. In JSON the escapes mean the same as what they stand for.
#[must_use]
pub fn plain(text: &str) -> String {
    escaped(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// The same for a cell of a table: it stays on its line.
pub(super) fn plain_cell(text: &str) -> String {
    escaped(text, char::is_control)
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
        assert_eq!(plain_cell("x\ny\t"), "x\\u000ay\\u0009");
        let json = serde_json::json!({ "name": nasty }).to_string();
        let read: serde_json::Value = serde_json::from_str(&plain(&json)).expect("JSON");
        assert_eq!(read["name"], nasty, "JSON stays what it was");
    }
}
