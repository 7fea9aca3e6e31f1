//! What `vmint checkout` binds to its sandbox: `--env` and `--file`.

use std::env;
use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::error::CliError;

/// `K=V`, or `K` alone for what this environment says.
pub(super) fn env(options: &[String]) -> Result<Option<Value>, CliError> {
    let mut variables = Map::new();
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (option.as_str(), inherited(option)?),
        };
        variables.insert(name.to_owned(), value.into());
    }
    Ok((!variables.is_empty()).then_some(Value::Object(variables)))
}

fn inherited(name: &str) -> Result<String, CliError> {
    env::var(name).map_err(|_| {
        CliError::Usage(format!(
            "--env {name}: there is no such variable here, or it is no text; write --env {name}=VALUE"
        ))
    })
}

/// `SRC:/PATH` or `SRC:/PATH:MODE`.
pub(super) fn files(options: &[String]) -> Result<Option<Value>, CliError> {
    let files: Vec<Value> = options
        .iter()
        .map(|option| file(option))
        .collect::<Result<_, _>>()?;
    Ok((!files.is_empty()).then_some(Value::Array(files)))
}

fn file(option: &str) -> Result<Value, CliError> {
    let (source, path, mode) = split(option).ok_or_else(|| {
        CliError::Usage(format!(
            "--file {option:?}: write it like notes.txt:/tmp/notes.txt or key:/etc/key:0600"
        ))
    })?;
    let content = fs::read(source)
        .map_err(|error| CliError::Usage(format!("--file {source:?} cannot be read: {error}")))?;
    let mut file = json!({ "path": path, "content_b64": BASE64_STANDARD.encode(content) });
    if let Some(mode) = mode {
        file["mode"] = mode.into();
    }
    Ok(file)
}

/// Source, path, mode. A path may have colons in it: only octal digits behind the last one are a mode.
fn split(option: &str) -> Option<(&str, &str, Option<&str>)> {
    let at = option.find(":/").filter(|at| *at > 0)?;
    let (source, path) = (&option[..at], &option[at + 1..]);
    let is_mode = |mode: &str| {
        (3..=4).contains(&mode.len()) && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
    };
    match path.rsplit_once(':') {
        Some((path, mode)) if is_mode(mode) => Some((source, path, Some(mode))),
        _ => Some((source, path, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_source_a_path_and_perhaps_a_mode() {
        assert_eq!(split("a:/b"), Some(("a", "/b", None)));
        assert_eq!(split("/x/a:/b:0600"), Some(("/x/a", "/b", Some("0600"))));
        assert_eq!(split("a:/b:c"), Some(("a", "/b:c", None)));
        for bad in ["a", "/b", ":/b", "a:b"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_that_of_this_environment() {
        let options = ["A=b=c".to_owned(), "PATH".to_owned()];
        let variables = env(&options).expect("PATH is set").expect("two");
        assert_eq!(variables["A"], "b=c");
        assert_eq!(variables["PATH"], env::var("PATH").expect("it is set"));
        assert!(env(&["VMINT_NO_SUCH_VARIABLE".to_owned()]).is_err());
        assert!(matches!(env(&[]), Ok(None)));
    }
}
