//! Lays a user's document over the default one. The default document is the schema: a key that is not in it is
//! unknown, and a value has the type of the default.

use toml::{Table, Value};

use super::problem::Problems;

/// The table whose every entry starts from the values of the default template.
const TEMPLATES: &str = "templates";
/// The template in the default document that the others start from.
const PATTERN: &str = "default";

/// The default document with the user's values in it; whatever does not fit is left out and told.
pub(crate) fn overlay(defaults: &Table, user: &Table, problems: &mut Problems) -> Table {
    let mut merged = defaults.clone();
    for (key, value) in user {
        match (key.as_str(), value, defaults.get(key)) {
            (TEMPLATES, Value::Table(templates), _) => {
                merged.insert(
                    key.clone(),
                    Value::Table(overlay_templates(defaults, templates, problems)),
                );
            }
            (_, value, Some(default)) => {
                merged.insert(key.clone(), overlay_value(key, default, value, problems));
            }
            (_, value, None) => tell_unknown(key, value, defaults, problems),
        }
    }
    merged
}

/// A file that has templates of its own has those only.
fn overlay_templates(defaults: &Table, user: &Table, problems: &mut Problems) -> Table {
    let pattern = &defaults[TEMPLATES][PATTERN];
    user.iter()
        .map(|(name, template)| {
            (
                name.clone(),
                overlay_value(&format!("{TEMPLATES}.{name}"), pattern, template, problems),
            )
        })
        .collect()
}

/// One value over its default: tables key by key, anything else as a whole.
fn overlay_value(path: &str, default: &Value, value: &Value, problems: &mut Problems) -> Value {
    match (default, value) {
        (Value::Table(defaults), Value::Table(user)) => {
            let mut merged = defaults.clone();
            for (key, value) in user {
                let path = format!("{path}.{key}");
                match defaults.get(key) {
                    Some(default) => {
                        merged.insert(key.clone(), overlay_value(&path, default, value, problems));
                    }
                    None => tell_unknown(&path, value, defaults, problems),
                }
            }
            Value::Table(merged)
        }
        (Value::Array(_), value) if is_argv_list(value) => value.clone(),
        (Value::Array(_), _) => {
            let reason =
                "must be a list of commands, each a list of strings with the program first";
            problems.add(
                path,
                value.clone(),
                reason,
                r#"write it like [["/bin/true"], ["echo", "hello"]]"#,
            );
            default.clone()
        }
        (default, value) if default.same_type(value) => value.clone(),
        // A number with a fraction may have none: TOML alone tells 1 from 1.0.
        #[allow(clippy::cast_precision_loss)]
        (Value::Float(_), Value::Integer(whole)) => Value::Float(*whole as f64),
        (default, value) => {
            let reason = format!("is {}, but must be {}", kind(value), kind(default));
            problems.add(
                path,
                value.clone(),
                reason,
                format!("write it like the default value, {}", one_line(default)),
            );
            default.clone()
        }
    }
}

fn is_argv_list(value: &Value) -> bool {
    let is_argv = |argv: &Value| {
        argv.as_array().is_some_and(|words| {
            words.iter().all(Value::is_str)
                && words
                    .first()
                    .and_then(Value::as_str)
                    .is_some_and(|w| !w.is_empty())
        })
    };
    value
        .as_array()
        .is_some_and(|list| list.iter().all(is_argv))
}

fn tell_unknown(path: &str, value: &Value, known: &Table, problems: &mut Problems) {
    let keys = known
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    problems.add(
        path,
        value.clone(),
        "is no key that vmint knows",
        format!("remove it, or use one of: {keys}"),
    );
}

/// The type in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A table as an example would fill the screen.
fn one_line(value: &Value) -> String {
    match value {
        Value::Table(_) => "a [table] of its own".to_owned(),
        other => other.to_string(),
    }
}
