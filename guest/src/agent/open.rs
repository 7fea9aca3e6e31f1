//! What a stream is to be: the JSON that opens it.

use vmint_guest_protocol::names::{codes, streams};

use super::bind;
use super::order::{self, Bases, Order};
use super::refusal::Refusal;
use crate::file::Wanted;
use crate::json::Reader;

pub(super) enum Open {
    Exec(Box<Order>),
    Attach {
        process: String,
        replay: bool,
        follow: bool,
    },
    Write(Wanted),
    Read(String),
}

pub(super) fn parse(text: &[u8], bases: &Bases) -> Result<Open, Refusal> {
    let mut open = None;
    let mut reader = Reader::new(text);
    let read = reader.fields(&mut |key, value| {
        let one_more = value.wrong("one kind of stream");
        if open.is_some() {
            return Err(one_more);
        }
        // The errors of what is inside have codes of their own.
        open = Some((key.to_owned(), value.raw()?));
        Ok(())
    });
    read.and_then(|()| reader.end())?;
    let Some((kind, inside)) = open else {
        return Err(Refusal::argument("OPEN", "a kind of stream"));
    };
    let mut inside = Reader::new(inside);
    match kind.as_str() {
        streams::EXEC => Ok(Open::Exec(Box::new(order::parse(
            &mut inside,
            false,
            bases,
        )?))),
        streams::ATTACH => attach(&mut inside),
        streams::WRITE => write(&mut inside),
        streams::READ => read_file(&mut inside),
        _ => {
            let kind: String = kind.chars().take(64).collect();
            let message = format!("{kind:?} is no kind of stream of this agent");
            Err(Refusal::new(codes::UNKNOWN, message))
        }
    }
}

fn attach(reader: &mut Reader<'_>) -> Result<Open, Refusal> {
    let (mut process, mut replay, mut follow) = (String::new(), false, true);
    reader.fields(&mut |key, value| {
        match key {
            "process" => process = value.string()?.into_owned(),
            "replay" => replay = value.boolean()?,
            "follow" => follow = value.boolean()?,
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    match process.is_empty() {
        true => Err(Refusal::argument("process", "an id")),
        false => Ok(Open::Attach {
            process,
            replay,
            follow,
        }),
    }
}

fn write(reader: &mut Reader<'_>) -> Result<Open, Refusal> {
    let mut wanted = Wanted::default();
    reader.fields(&mut |key, value| bind::take_file(&mut wanted, key, value))?;
    Ok(Open::Write(wanted))
}

fn read_file(reader: &mut Reader<'_>) -> Result<Open, Refusal> {
    let mut path = String::new();
    reader.fields(&mut |key, value| {
        match key {
            "path" => path = value.string()?.into_owned(),
            _ => return Err(value.unknown(key)),
        }
        Ok(())
    })?;
    Ok(Open::Read(path))
}
