//! What reads text that others wrote, for fuzz targets and for tests of any bytes: it is understood or refused, and nothing
//! else comes of it. Each says whether it was understood.

use super::open;
use super::order::Bases;
use super::processes::read_record;
use super::request;
use crate::command::Environment;

/// A request of the host's.
#[must_use]
pub fn request(text: &[u8]) -> bool {
    request::parse(text).1.is_ok()
}

/// What opens a stream.
#[must_use]
pub fn open(text: &[u8]) -> bool {
    let bases = Bases {
        own: Environment::default(),
        bound: Environment::default(),
    };
    open::parse(text, &bases).is_ok()
}

/// What an agent has stored of a process for the one after it.
#[must_use]
pub fn record(text: &[u8]) -> bool {
    read_record(text)
}
