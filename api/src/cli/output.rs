//! What goes to standard output: the API's JSON, or text for people.

use std::io::{self, Write as _};

use serde::de::DeserializeOwned;

use super::client::Answer;
use super::error::CliError;
use crate::plain::plain;

/// How a command shows its result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// The API's JSON instead of text.
    pub(super) json: bool,
}

impl Output {
    /// The answer as it came, or what `text` makes of it. Returns the exit code of a command that worked.
    pub(super) fn show<T: DeserializeOwned>(
        self,
        answer: &Answer,
        text: impl FnOnce(T) -> String,
    ) -> Result<u8, CliError> {
        if self.json {
            print_bytes(&[&answer.body, b"\n"])?;
        } else {
            print(&text(answer.read()?))?;
        }
        Ok(0)
    }
}

/// Writes text for people, without what a terminal would obey; a line ends it in any case.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let end: &[u8] = if text.is_empty() || text.ends_with('\n') {
        b""
    } else {
        b"\n"
    };
    print_bytes(&[plain(text).as_bytes(), end])
}

/// Writes bytes as they are.
pub(super) fn print_bytes(parts: &[&[u8]]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    parts
        .iter()
        .try_for_each(|part| out.write_all(part))
        .and_then(|()| out.flush())
        .map_err(CliError::output)
}
