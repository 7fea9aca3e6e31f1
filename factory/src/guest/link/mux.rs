//! All that one connection carries: requests, streams, and whose turn it is to be written.
//!
//! Pure: frames go in, frames come out, and nothing here waits. A stream is in one of these states:
//!
//! ```text
//!  open() --> has a handle ---- RESULT, taken ----------------> id free
//!                |
//!                +-- abandon() --> CANCEL, what comes is thrown away -- RESULT --> id free
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;
use vmint_guest_protocol::STREAMS_MAX;
use vmint_guest_protocol::frame::{CONTROL, Frame, Kind, Parsed, STREAM_MAX, Seal, parse};

use super::control::Control;
use super::slot::{Once, Slot, Waiters, channel_index};
use crate::wire::LinkError;

/// How long the guest may take to end a stream that was given up, before that stream's number is wanted for another.
const ABANDONED_DEADLINE: Duration = Duration::from_secs(30);

/// What the guest did that it may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("stream {stream} got more on channel {channel} than there was credit for")]
    OverCredit { stream: u16, channel: u8 },
    #[error("a frame of kind {kind:?} on stream {stream} is malformed")]
    Malformed { stream: u16, kind: Kind },
    #[error("{0}")]
    Message(String),
    #[error("what came is no frame")]
    NoFrame,
    #[error("another connection has begun")]
    Mark,
}

/// A stream to begin.
#[derive(Debug, Default)]
pub(in crate::guest) struct Opening {
    /// The object that says what it is, of at most [`OPEN_MAX_BYTES`](vmint_guest_protocol::message::OPEN_MAX_BYTES).
    pub(in crate::guest) object: Vec<u8>,
    /// Bytes for its first channel.
    pub(in crate::guest) input: Bytes,
    /// Whether those are all.
    pub(in crate::guest) is_whole: bool,
}

/// Why a stream was not begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    /// As many are open as may be.
    TooMany,
    Lost(LinkError),
}

/// Something that a stream's handle takes.
#[derive(Clone, Debug)]
pub(in crate::guest) enum Incoming {
    /// Bytes of a channel.
    Data { channel: u8, bytes: Bytes },
    /// The guest says how it ended. The last of a stream.
    Result(Bytes),
}

/// What a connection carries.
#[derive(Debug, Default)]
pub(super) struct Mux {
    seal: Seal,
    pub(super) control: Control,
    slots: BTreeMap<u16, Slot>,
    /// The id that was given out last: the next one is another, so that late frames are nobody's.
    last_id: u16,
    /// The stream whose data was written last.
    last_turn: u16,
    lost: Option<LinkError>,
}

impl Mux {
    pub(super) fn new(seal: Seal) -> Self {
        Self {
            seal,
            ..Self::default()
        }
    }

    /// Queues a request.
    pub(super) fn ask(
        &mut self,
        id: u64,
        message: Vec<u8>,
        reply: oneshot::Sender<Vec<u8>>,
    ) -> Result<(), LinkError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        self.control.ask(id, message, reply);
        Ok(())
    }

    /// Begins a stream.
    pub(super) fn open(&mut self, opening: Opening) -> Result<(u16, Waiters), NoStream> {
        if let Some(lost) = &self.lost {
            return Err(NoStream::Lost(lost.clone()));
        }
        if self.slots.len() >= STREAMS_MAX {
            return Err(NoStream::TooMany);
        }
        // There are fewer streams than numbers.
        let mut id = self.last_id;
        loop {
            id = if id >= STREAM_MAX { 1 } else { id + 1 };
            if !self.slots.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let slot = Slot::new(opening);
        let waiters = slot.waiters.clone();
        self.slots.insert(id, slot);
        Ok((id, waiters))
    }

    /// Takes every frame that has come whole. What is left is the beginning of another.
    pub(super) fn take_frames(&mut self, incoming: &mut BytesMut) -> Result<(), Violation> {
        loop {
            let size = match parse(incoming, &self.seal) {
                Parsed::Partial => return Ok(()),
                Parsed::Frame(frame, size) => {
                    self.on_frame(frame)?;
                    size
                }
                Parsed::Mark(..) => return Err(Violation::Mark),
                Parsed::Broken => return Err(Violation::NoFrame),
            };
            incoming.advance(size);
        }
    }

    /// Takes a frame of the guest.
    fn on_frame(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        let Frame {
            stream,
            kind,
            channel,
            payload,
        } = frame;
        if stream == CONTROL {
            return match kind {
                Some(Kind::Message) => {
                    let taken = self.control.on_message(channel, payload);
                    taken.map_err(Violation::Message)
                }
                _ => Ok(()),
            };
        }
        // Streams that have ended, and kinds of a later protocol, are passed over.
        let (Some(slot), Some(kind)) = (self.slots.get_mut(&stream), kind) else {
            return Ok(());
        };
        if slot.result.is_some() {
            return Ok(());
        }
        let malformed = Violation::Malformed { stream, kind };
        match kind {
            Kind::Data => {
                let at = channel_index(channel).ok_or(malformed)?;
                slot.on_data(at, payload)
                    .ok_or(Violation::OverCredit { stream, channel })?;
            }
            Kind::End => {
                let at = channel_index(channel).ok_or(malformed)?;
                slot.has_ended[at] = true;
            }
            Kind::Credit => {
                let mut more = payload;
                let more = more.try_get_u32_le().unwrap_or_default();
                slot.credit = slot.credit.saturating_add(more);
            }
            Kind::Result if slot.abandoned.is_some() => {
                self.slots.remove(&stream);
            }
            Kind::Result => {
                slot.result = Some(Bytes::copy_from_slice(payload));
                slot.waiters.wake();
            }
            Kind::Open | Kind::Resize | Kind::Cancel | Kind::Message | Kind::Mark => {}
        }
        Ok(())
    }

    /// Appends the next frame that is to be written, and says whether there was one.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let seal = self.seal;
        if self.control.write_next(&seal, out) {
            return true;
        }
        let mut slots = self.slots.iter_mut();
        if slots.any(|(&id, slot)| slot.write_control(&seal, id, out)) {
            return true;
        }
        let next = self
            .slots
            .range(self.last_turn.saturating_add(1)..)
            .chain(self.slots.range(..=self.last_turn))
            .find(|(_, slot)| slot.has_data_to_write());
        let Some((&id, _)) = next else {
            return false;
        };
        self.last_turn = id;
        let slot = self.slots.get_mut(&id);
        slot.is_some_and(|slot| slot.write_data(&seal, id, out))
    }

    /// Takes what has come of a stream, if anything; the last is its result, or why the connection is gone.
    pub(super) fn take(&mut self, id: u16) -> Option<Result<Incoming, LinkError>> {
        let lost = self.lost.clone();
        let Some(slot) = self.slots.get_mut(&id) else {
            return Some(Err(lost.unwrap_or(LinkError::Closed)));
        };
        if let Some((channel, bytes)) = slot.inbox.pop() {
            slot.owe(channel, bytes.len());
            return Some(Ok(Incoming::Data { channel, bytes }));
        }
        let last = match slot.result.take() {
            Some(result) => Ok(Incoming::Result(result)),
            None => Err(lost?),
        };
        self.slots.remove(&id);
        Some(last)
    }

    /// Whether so much of a stream was taken that the guest is to be told.
    pub(super) fn owes_credit(&self, id: u16) -> bool {
        let slot = self.slots.get(&id);
        slot.is_some_and(|slot| slot.credit_due().is_some())
    }

    /// Hands bytes to the guest over, or gives them back while there are others before them.
    pub(super) fn give(&mut self, id: u16, bytes: Bytes) -> Result<(), Bytes> {
        match self.slots.get_mut(&id) {
            Some(slot) if slot.takes_no_more() => Ok(()),
            Some(slot) if !slot.outgoing.is_empty() => Err(bytes),
            Some(slot) => {
                slot.outgoing = bytes;
                Ok(())
            }
            // It has ended; its taker is told how.
            None => Ok(()),
        }
    }

    /// Changes what a stream has to say, unless it has ended.
    pub(super) fn of(&mut self, id: u16, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(&id) {
            change(slot);
        }
    }

    /// The stream has no handle any more. Answers whether the guest is to be told.
    pub(super) fn abandon(&mut self, id: u16) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return false;
        };
        if slot.result.is_some() || slot.open.is_some() || self.lost.is_some() {
            self.slots.remove(&id);
            return false;
        }
        slot.cancel.want();
        slot.abandoned = Some(Instant::now());
        slot.outgoing = Bytes::new();
        slot.end = Once::Written;
        while let Some((channel, bytes)) = slot.inbox.pop() {
            slot.owe(channel, bytes.len());
        }
        true
    }

    /// Whether another connection is needed: this one is gone, or no stream can be begun because the guest has left
    /// cancelled ones open for longer than it may.
    pub(super) fn is_lost(&self) -> bool {
        let is_full = self.slots.len() >= STREAMS_MAX;
        let mut since = self.slots.values().filter_map(|slot| slot.abandoned);
        self.lost.is_some() || is_full && since.any(|since| since.elapsed() > ABANDONED_DEADLINE)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Why the connection is gone, once it is.
    pub(super) fn lost(&self) -> Option<LinkError> {
        self.lost.clone()
    }

    /// The connection is gone: everything ends.
    pub(super) fn lose(&mut self, why: LinkError) {
        self.lost.get_or_insert(why);
        self.control.lose();
        self.slots.retain(|_, slot| slot.abandoned.is_none());
        for slot in self.slots.values_mut() {
            slot.waiters.wake();
        }
    }
}
