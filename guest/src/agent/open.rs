//! What a stream is to be: the JSON that opens it.

use serde::Deserialize;
use vmint_guest_protocol::names::codes;

use super::order::{Bases, Command, Order};
use super::refusal::Refusal;
use crate::file::Wanted;
use crate::json::{self, Object};

pub(super) enum Open {
    Exec(Box<Order>),
    Attach(Attach),
    Write(Wanted),
    Read(String),
}

/// One field, whose name is the kind of the stream.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Opening {
    Exec(Object<Command>),
    Attach(Object<Attach>),
    Write(Object<Wanted>),
    Read(Object<Read>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attach {
    pub(super) process: String,
    pub(super) replay: Option<bool>,
    pub(super) follow: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    path: String,
}

pub(super) fn parse(text: &[u8], bases: &Bases) -> Result<Open, Refusal> {
    let opening = json::value(text).map_err(|wrong| match wrong.is_unknown_variant() {
        true => Refusal::new(codes::UNKNOWN, format!("kind of stream: {wrong}")),
        false => wrong.into(),
    })?;
    Ok(match opening {
        Opening::Exec(Object(command)) => {
            if command.keep_output.is_some() {
                return Err(Refusal::argument("keep_output", "a process that is listed"));
            }
            Open::Exec(Box::new(command.into_order(bases)?))
        }
        Opening::Attach(Object(attach)) => Open::Attach(attach),
        Opening::Write(Object(wanted)) => Open::Write(wanted),
        Opening::Read(Object(Read { path })) => Open::Read(path),
    })
}
