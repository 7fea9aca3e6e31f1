//! What a stream is to be: the JSON of its first frame.

use super::Trouble;
use crate::agent::bind::{self, DEFAULT_MODE};
use crate::agent::jobs::Jobs;
use crate::agent::orders::{self, StreamOrder};
use crate::json::{Reader, Wrong};

pub(super) enum Open {
    Exec(StreamOrder),
    Write { path: String, mode: u32 },
    Read { path: String },
}

pub(super) fn parse(payload: &[u8], jobs: &Jobs) -> Result<Open, Trouble> {
    let mut open = None;
    let mut refused = None;
    let mut reader = Reader::new(payload);
    let read = reader.fields(&mut |key, value| {
        match key {
            "exec" => match orders::stream_exec(value.raw()?, jobs.environment(), jobs.bound()) {
                Ok(order) => open = Some(Open::Exec(order)),
                Err(error) => refused = Some(error.to_string()),
            },
            "write" => {
                let (path, mode) = file(value)?;
                open = Some(Open::Write { path, mode });
            }
            "read" => {
                open = Some(Open::Read {
                    path: file(value)?.0,
                })
            }
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    });
    if let Err(wrong) = read.and_then(|()| reader.end()) {
        return Err(Trouble::own(format!("not a stream: {wrong}")));
    }
    match (refused, open) {
        (Some(refused), _) => Err(Trouble::own(refused)),
        (None, Some(open)) => Ok(open),
        (None, None) => Err(Trouble::own("not a stream: exec, write or read is needed")),
    }
}

fn file(value: &mut Reader<'_>) -> Result<(String, u32), Wrong> {
    let (mut path, mut mode) = (String::new(), DEFAULT_MODE);
    value.fields(&mut |key, value| {
        match key {
            "path" => path = value.string()?.into_owned(),
            "mode" => mode = bind::mode(value)?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    Ok((path, mode))
}
