//! All streams of one connection: ids, credit, and whose turn it is to say something.
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

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::frame::{Header, Kind, MAX_ID, MAX_STREAMS};
use super::slot::{Once, Slot, Waiters, channel_index};
use crate::guest::{GuestError, WindowSize};

/// How long the guest may take to end a stream that was given up.
const ABANDONED_DEADLINE: Duration = Duration::from_secs(30);

/// What the guest did that it may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("stream {stream} got more on channel {channel} than there was credit for")]
    OverCredit { stream: u16, channel: u8 },
    #[error("a frame of kind {kind:?} on stream {stream} is malformed")]
    Malformed { stream: u16, kind: Kind },
}

/// Something that a stream's handle takes.
#[derive(Clone, Debug)]
pub(super) enum Incoming {
    /// Bytes of a channel.
    Data { channel: u8, bytes: Bytes },
    /// The guest says how it ended. The last of a stream.
    Result(Bytes),
    /// The connection is gone. The last of a stream.
    Lost(GuestError),
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Mux {
    slots: BTreeMap<u16, Slot>,
    /// The id that was given out last: the next one is another, so that late frames are nobody's.
    last_id: u16,
    /// The stream whose data was written last.
    last_turn: u16,
    lost: Option<GuestError>,
}

impl Mux {
    /// Begins a stream. `open` is at most [`MAX_PAYLOAD_BYTES`] long.
    pub(super) fn open(&mut self, open: Vec<u8>) -> Result<(u16, Waiters), GuestError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        if self.slots.len() >= MAX_STREAMS {
            return Err(GuestError::Refused {
                command: "a stream",
                reason: format!("{MAX_STREAMS} are open, and more are not possible at once"),
            });
        }
        // There are fewer streams than ids.
        let mut id = self.last_id;
        loop {
            id = if id >= MAX_ID { 1 } else { id + 1 };
            if !self.slots.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let slot = Slot::new(open);
        let waiters = slot.waiters.clone();
        self.slots.insert(id, slot);
        Ok((id, waiters))
    }

    /// Takes a frame of the guest.
    pub(super) fn on_frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        let stream = header.stream;
        // Streams that have ended, and kinds of a later protocol, are passed over.
        let (Some(slot), Some(kind)) = (self.slots.get_mut(&stream), header.kind) else {
            return Ok(());
        };
        if slot.result.is_some() {
            return Ok(());
        }
        let malformed = Violation::Malformed { stream, kind };
        match kind {
            Kind::Data => {
                let at = channel_index(header.channel).ok_or(malformed)?;
                slot.on_data(at, payload).ok_or(Violation::OverCredit {
                    stream,
                    channel: header.channel,
                })?;
            }
            Kind::End => {
                let at = channel_index(header.channel).ok_or(malformed)?;
                slot.has_ended[at] = true;
            }
            Kind::Credit => {
                let mut more = payload;
                let more = more.try_get_u32_le().map_err(|_| malformed)?;
                slot.credit = slot.credit.saturating_add(more);
            }
            Kind::Result if slot.abandoned.is_some() => {
                self.slots.remove(&stream);
            }
            Kind::Result => {
                slot.result = Some(Bytes::copy_from_slice(payload));
                slot.waiters.wake();
            }
            Kind::Open | Kind::Resize | Kind::Cancel | Kind::Mark => {}
        }
        Ok(())
    }

    /// Appends the next frame that is to be written, and says whether there was one.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let mut slots = self.slots.iter_mut();
        if slots.any(|(&id, slot)| slot.write_control(id, out)) {
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
        slot.is_some_and(|slot| slot.write_data(id, out))
    }

    /// Takes what has come of a stream, if anything.
    pub(super) fn take(&mut self, id: u16) -> Option<Incoming> {
        let lost = self.lost.clone();
        let Some(slot) = self.slots.get_mut(&id) else {
            return Some(Incoming::Lost(lost.unwrap_or(GuestError::Closed)));
        };
        if let Some((channel, bytes)) = slot.inbox.pop() {
            slot.owe(channel, bytes.len());
            return Some(Incoming::Data { channel, bytes });
        }
        let last = match slot.result.take() {
            Some(result) => Incoming::Result(result),
            None => Incoming::Lost(lost?),
        };
        self.slots.remove(&id);
        Some(last)
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

    /// Nothing more will be given.
    pub(super) fn end(&mut self, id: u16) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.end.want();
        }
    }

    /// Another size of the terminal. Only the last one counts.
    pub(super) fn resize(&mut self, id: u16, size: WindowSize) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.resize = Some(size);
        }
    }

    /// The guest is to kill what it runs.
    pub(super) fn cancel(&mut self, id: u16) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.cancel.want();
        }
    }

    /// Nobody has the stream any more.
    pub(super) fn abandon(&mut self, id: u16) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.result.is_some() || slot.open.is_some() || self.lost.is_some() {
            self.slots.remove(&id);
            return;
        }
        slot.cancel.want();
        slot.abandoned = Some(Instant::now());
        slot.outgoing = Bytes::new();
        slot.end = Once::Written;
        while let Some((channel, bytes)) = slot.inbox.pop() {
            slot.owe(channel, bytes.len());
        }
    }

    /// Whether another connection is needed: this one is gone, or the guest has left a cancelled stream open for
    /// longer than it may.
    pub(super) fn is_lost(&self) -> bool {
        let mut since = self.slots.values().filter_map(|slot| slot.abandoned);
        self.lost.is_some() || since.any(|since| since.elapsed() > ABANDONED_DEADLINE)
    }

    /// The connection is gone: tells everybody.
    pub(super) fn lose(&mut self, why: GuestError) {
        self.lost.get_or_insert(why);
        self.slots.retain(|_, slot| slot.abandoned.is_none());
        for slot in self.slots.values() {
            slot.waiters.wake();
        }
    }
}
