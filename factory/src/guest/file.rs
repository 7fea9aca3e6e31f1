//! Files of the guest, in pieces.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use vmint_guest_protocol::channel;
use vmint_guest_protocol::frame::PAYLOAD_MAX_BYTES;
use vmint_guest_protocol::message::OPEN_MAX_BYTES;
use vmint_guest_protocol::names::codes;

use super::agent::Agent;
use super::error::{Refusal, failed, malformed};
use super::link::{Incoming, Opening, Stream};
use super::{FileError, FileOwner, FilePiece, FileReader, FileWriter, GuestError, WriteOptions};

/// How long the guest may do nothing for a file, while it is its turn: opening it, sending the next bytes, storing
/// what it has.
const STALL: Duration = Duration::from_secs(60);
/// Pieces that wait for their taker beside the stream's window.
const PIECES: usize = 2;
const STEP: &str = "a file";
/// The kernel's number for a name that is too long.
const ENAMETOOLONG: i32 = 36;

/// `OPEN` of a file.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Open<'a> {
    Read {
        path: &'a str,
    },
    Write {
        path: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
}

#[derive(Serialize)]
struct Owner {
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
}

/// What there is to know of a file before its first byte.
#[derive(Deserialize)]
struct Head {
    size: Option<u64>,
    mode: u32,
}

/// `RESULT` of a file that was read or stored whole.
#[derive(Deserialize)]
struct Stored {
    size: u64,
}

impl Agent {
    /// Opens a file to read it.
    ///
    /// # Cancel safety
    /// Safe: a dropped call closes the file.
    pub(crate) async fn read_file(&self, path: &str) -> Result<FileReader, FileError> {
        let stream = self.open_file(path, &Open::Read { path })?;
        let Head { size, mode } = match next(&stream, "the opening of a file").await? {
            Incoming::Data {
                channel: channel::ERROR,
                bytes,
            } => serde_json::from_slice(&bytes)
                .map_err(|error| malformed("a file's head", &error))?,
            Incoming::Data { .. } => return Err(wrong("bytes before the file's head").into()),
            Incoming::Result(result) => {
                stored(path, &result)?;
                return Err(wrong("an end before the file's head").into());
            }
        };
        let (pieces, chunks) = mpsc::channel(PIECES);
        tokio::spawn(carry_out(stream, path.to_owned(), pieces));
        Ok(FileReader { size, mode, chunks })
    }

    /// Begins to write a file.
    pub(crate) fn write_file(
        &self,
        path: &str,
        options: WriteOptions,
    ) -> Result<FileWriter, FileError> {
        let WriteOptions { mode, owner } = options;
        let owner = owner.map(|FileOwner { uid, gid }| Owner { uid, gid });
        let stream = self.open_file(path, &Open::Write { path, mode, owner })?;
        let (pieces, orders) = mpsc::channel(PIECES);
        let (done, stored) = oneshot::channel();
        let path = path.to_owned();
        tokio::spawn(async move {
            if let Some(outcome) = carry_in(&stream, &path, orders).await {
                drop(done.send(outcome));
            }
        });
        Ok(FileWriter { pieces, stored })
    }

    fn open_file(&self, path: &str, open: &Open<'_>) -> Result<Stream, FileError> {
        let object = serde_json::to_vec(open).unwrap_or_default();
        if object.is_empty() || object.len() > OPEN_MAX_BYTES {
            return Err(FileError::Refused {
                path: path.chars().take(64).collect(),
                errno: ENAMETOOLONG,
                reason: format!("the path has {} bytes", path.len()),
            });
        }
        let opening = Opening {
            object,
            ..Opening::default()
        };
        Ok(self.link.open(opening)?)
    }
}

/// The next thing, or that there was none for too long.
async fn next(stream: &Stream, command: &'static str) -> Result<Incoming, GuestError> {
    let next = tokio::time::timeout(STALL, stream.next()).await;
    let next = next.map_err(|_| silent(command))?;
    next.map_err(|why| failed(STEP, why))
}

/// From the guest. Nothing is taken from the stream before there is room for it.
async fn carry_out(stream: Stream, path: String, pieces: mpsc::Sender<Result<Bytes, FileError>>) {
    let mut bytes_sent = 0;
    loop {
        // Closed: the rest is not wanted.
        let Ok(room) = pieces.reserve().await else {
            return;
        };
        let next = tokio::select! {
            next = next(&stream, "the next bytes of a file") => next,
            () = pieces.closed() => return,
        };
        let end = match next {
            Ok(Incoming::Data {
                channel: channel::OUTPUT,
                bytes,
            }) => {
                bytes_sent += bytes.len() as u64;
                room.send(Ok(bytes));
                continue;
            }
            Ok(Incoming::Data { .. }) => continue,
            Ok(Incoming::Result(result)) => stored(&path, &result).and_then(|size| {
                let is_whole = size == bytes_sent;
                let cut = || wrong(&format!("{bytes_sent} bytes came of {size}")).into();
                if is_whole { Ok(()) } else { Err(cut()) }
            }),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = end {
            room.send(Err(error));
        }
        return;
    }
}

/// To the guest. Nothing when the writer was dropped: there is no caller to answer.
async fn carry_in(
    stream: &Stream,
    path: &str,
    mut orders: mpsc::Receiver<FilePiece>,
) -> Option<Result<u64, FileError>> {
    // A guest that cannot go on says so in the middle.
    let result = tokio::select! {
        result = last_word(stream) => result,
        given = give_all(stream, &mut orders) => {
            if given? {
                let silent = Err(silent("a file to be stored"));
                let stored = tokio::time::timeout(STALL, last_word(stream)).await;
                stored.unwrap_or(silent)
            } else {
                Err(silent("room for the next bytes of a file"))
            }
        }
    };
    Some(match result {
        Ok(result) => stored(path, &result),
        Err(why) => Err(why.into()),
    })
}

/// Gives everything to the stream, up to the end. Answers whether the guest took it in time; nothing when the writer
/// was dropped before.
async fn give_all(stream: &Stream, orders: &mut mpsc::Receiver<FilePiece>) -> Option<bool> {
    loop {
        match orders.recv().await? {
            FilePiece::Bytes(mut rest) => {
                while !rest.is_empty() {
                    // In frames: a stall is one of a frame, however large the piece is.
                    let frame = rest.split_to(rest.len().min(PAYLOAD_MAX_BYTES));
                    if tokio::time::timeout(STALL, stream.send(frame))
                        .await
                        .is_err()
                    {
                        return Some(false);
                    }
                }
            }
            FilePiece::End => {
                stream.end();
                return Some(true);
            }
        }
    }
}

/// Waits for the result.
async fn last_word(stream: &Stream) -> Result<Bytes, GuestError> {
    loop {
        let next = stream.next().await.map_err(|why| failed(STEP, why))?;
        if let Incoming::Result(result) = next {
            return Ok(result);
        }
    }
}

fn silent(command: &'static str) -> GuestError {
    let after = STALL;
    GuestError::Silent { command, after }
}

fn stored(path: &str, result: &[u8]) -> Result<u64, FileError> {
    match Refusal::or_result(STEP, result)? {
        Ok(Stored { size }) => Ok(size),
        Err(failure) => Err(refused(path, failure)),
    }
}

/// The guest's words begin with a path, which may be another one: that of a folder that could not be made.
fn refused(path: &str, failure: Refusal) -> FileError {
    if [codes::TOO_MANY, codes::UNKNOWN, codes::CANCELLED].contains(&failure.code.as_str()) {
        return FileError::Guest(failure.of(STEP));
    }
    let words = failure.message;
    let reason = words
        .strip_prefix(path)
        .and_then(|rest| rest.strip_prefix(": "));
    FileError::Refused {
        path: path.to_owned(),
        errno: failure.errno,
        reason: reason.map(str::to_owned).unwrap_or(words),
    }
}

fn wrong(reason: &str) -> GuestError {
    GuestError::Proof {
        step: STEP,
        reason: reason.to_owned(),
    }
}
