//! What lines look like.

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::Level;

use super::*;

fn line(style: Style, fields: &Fields) -> String {
    let line = Line {
        timestamp: Timestamp::UNIX_EPOCH,
        level: Level::WARN,
        target: "vmint_cache::pool",
    };
    line.render(style, fields)
}

fn fields(message: &str, values: &[(&'static str, Value)]) -> Fields {
    let mut fields = Fields {
        message: message.to_owned(),
        ..Fields::default()
    };
    for (name, value) in values {
        fields.set(name, value.clone());
    }
    fields
}

#[test]
fn a_json_line_has_the_documented_fields_and_the_rest_below_them() {
    let mut event = fields(
        "a clone died",
        &[
            ("vm", json!("ab12")),
            ("pid", json!(7)),
            ("how", json!("x")),
        ],
    );
    let request = [
        ("request_id", json!("r-1")),
        ("template", json!("default")),
        ("how", json!("of the span")),
    ];
    event.add_outer(&fields("", &request));
    let text = line(Style::Json, &event);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.ends_with('\n'));
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        json!({
            "timestamp": "1970-01-01T00:00:00.000000Z",
            "level": "WARN",
            "message": "a clone died",
            "target": "vmint_cache::pool",
            "request_id": "r-1",
            "template": "default",
            "sandbox": "ab12",
            "fields": {"pid": 7, "how": "x"},
        })
    );
    let bare: Value = serde_json::from_str(&line(Style::Json, &fields("m", &[]))).expect("JSON");
    let names: Vec<_> = bare.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["level", "message", "target", "timestamp"]);
}

#[test]
fn a_text_line_quotes_what_could_be_taken_for_something_else() {
    let event = fields(
        "the guest said \"no\"",
        &[
            ("vm", json!("ab12")),
            ("count", json!(3)),
            ("error", json!("a b=\"c\\\"")),
            ("empty", json!("")),
        ],
    );
    assert_eq!(
        line(Style::Text, &event),
        "1970-01-01T00:00:00.000000Z  WARN vmint_cache::pool: the guest said \"no\" sandbox=ab12 count=3 \
         error=\"a b=\\\"c\\\\\\\"\" empty=\"\"\n"
    );
    assert!(line(Style::Colored, &event).contains("\x1b[33m WARN\x1b[0m"));
}

#[test]
fn nothing_in_a_message_begins_a_line_or_talks_to_a_terminal() {
    let forged =
        "x\n1970-01-01T00:00:00Z ERROR vmint: forged\r\x1b[2J\u{9b}\u{7}\u{2028}\u{202e}\t";
    let event = fields(forged, &[("console", json!(forged))]);
    for style in [Style::Text, Style::Json] {
        let text = line(style, &event);
        let ours = text.strip_suffix('\n').expect("an end");
        assert!(!ours.chars().any(char::is_control), "{style:?}: {text:?}");
    }
    let text = line(Style::Text, &event);
    assert!(
        text.contains(
            r"x\n1970-01-01T00:00:00Z ERROR vmint: forged\r\u{1b}[2J\u{9b}\u{7}\u{2028}\u{202e}\t"
        ),
        "{text}"
    );
}

#[test]
fn a_value_has_a_longest() {
    use std::fmt::Write as _;
    let mut text = Capped::default();
    let _ = write!(text, "{}{}", "x".repeat(VALUE_MAX_BYTES - 1), "é".repeat(9));
    let text = text.finish();
    assert_eq!(text.len(), VALUE_MAX_BYTES - 1 + "... (cut)".len());
    assert!(text.ends_with("x... (cut)"));
}

#[test]
fn the_last_words_are_an_event_of_one_line() {
    let text = last_words("vmint: it cannot start:\n  a \x1b[2J");
    assert_eq!(text.matches('\n').count(), 1);
    let event: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(event["message"], "vmint: it cannot start:\n  a \x1b[2J");
    assert_eq!(
        (&event["level"], &event["target"]),
        (&json!("ERROR"), &json!("vmint"))
    );
}
