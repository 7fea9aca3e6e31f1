//! One line: what an event and its spans say, as text or JSON.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::Level;
use tracing::field::{Field, Visit};

use crate::plain::{controls, plain_line};

/// The longest value or message, bytes: a guest's console may be quoted in one, and one line is not to fill the queue.
const VALUE_MAX_BYTES: usize = 16 * 1024;

/// The name under which lines have a VM's id, whether it is leased or not: ids stay the same.
const SANDBOX: &str = "sandbox";
/// The name under which events have it.
const VM: &str = "vm";
/// What stands beside `timestamp, level, message, target` in a JSON line, not under `fields`.
const CONTEXT: [&str; 3] = ["request_id", "template", SANDBOX];

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    /// Text, for a terminal.
    Colored,
    Json,
}

/// What a line says of itself.
pub(super) struct Line<'a> {
    pub(super) timestamp: Timestamp,
    pub(super) level: Level,
    pub(super) target: &'a str,
}

/// What an event, or a span, says: its message, and values by name.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Sets a value; one of this name that was there is replaced.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        let name = if name == VM { SANDBOX } else { name };
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.values.push((name, value)),
        }
    }

    /// Sets all values of another one.
    pub(super) fn update(&mut self, new: Self) {
        for (name, value) in new.values {
            self.set(name, value);
        }
    }

    /// Adds the values of a span around it. What is nearer to the event holds.
    pub(super) fn add_outer(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            if !self.values.iter().any(|(known, _)| known == name) {
                self.values.push((name, value.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Capped::default();
        // A value that cannot be printed is missing, and the event is not.
        let _ = write!(text, "{value:?}");
        let text = text.finish();
        if field.name() == "message" {
            self.message = text;
        } else {
            self.set(field.name(), Value::String(text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" && value.len() <= VALUE_MAX_BYTES {
            // As it is: every request has some of these.
            return self.set(field.name(), value.into());
        }
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }
}

/// Text that ends at its longest, and says so.
#[derive(Default)]
struct Capped {
    text: String,
    is_cut: bool,
}

impl Capped {
    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str("... (cut)");
        }
        self.text
    }
}

impl fmt::Write for Capped {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = VALUE_MAX_BYTES - self.text.len();
        let mut taken = room.min(more.len());
        while !more.is_char_boundary(taken) {
            taken -= 1;
        }
        self.text.push_str(&more[..taken]);
        self.is_cut |= taken < more.len();
        // It is cut, and the formatting of the rest is spared.
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Line<'_> {
    /// The whole line, with its end.
    pub(super) fn render(&self, style: Style, fields: &Fields) -> String {
        let mut line = match style {
            // In JSON such characters are in strings only.
            Style::Json => plain_line(&self.json(fields).to_string()),
            Style::Text => self.text(fields, self.level.as_str()),
            Style::Colored => self.text(fields, &colored(self.level)),
        };
        line.push('\n');
        line
    }

    fn json(&self, fields: &Fields) -> Value {
        let mut line = Map::new();
        let timestamp = format!("{:.6}", self.timestamp);
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), self.level.as_str().into());
        line.insert("message".to_owned(), fields.message.as_str().into());
        line.insert("target".to_owned(), self.target.into());
        let mut rest = Map::new();
        for (name, value) in &fields.values {
            let into = if CONTEXT.contains(name) {
                &mut line
            } else {
                &mut rest
            };
            into.insert((*name).to_owned(), value.clone());
        }
        if !rest.is_empty() {
            line.insert("fields".to_owned(), json!(rest));
        }
        Value::Object(line)
    }

    fn text(&self, fields: &Fields, level: &str) -> String {
        let mut line = format!("{:.6} {level:>5} {}: ", self.timestamp, self.target);
        escape(&fields.message, &mut line);
        for (name, value) in &fields.values {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            match value {
                Value::String(text) if is_plain(text) => line.push_str(text),
                Value::String(text) => {
                    line.push('"');
                    escape(&text.replace('\\', "\\\\").replace('"', "\\\""), &mut line);
                    line.push('"');
                }
                other => line.push_str(&other.to_string()),
            }
        }
        line
    }
}

/// The error that a service ends with, as an event in JSON.
pub(super) fn last_words(text: &str) -> String {
    let line = Line {
        timestamp: Timestamp::now(),
        level: Level::ERROR,
        target: env!("CARGO_PKG_NAME"),
    };
    let fields = Fields {
        message: text.to_owned(),
        ..Fields::default()
    };
    line.render(Style::Json, &fields)
}

/// Whether a value needs no quotes.
fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !controls(c) && !"\"\\=".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

/// What a guest or a client wrote is in here: it may not begin a line of its own, nor talk to a terminal.
fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            '\t' => into.push_str("\\t"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            c if controls(c) => into.extend(c.escape_unicode()),
            c => into.push(c),
        }
    }
}

fn colored(level: Level) -> String {
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\x1b[{color}m{:>5}\x1b[0m", level.as_str())
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
