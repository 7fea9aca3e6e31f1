//! One stream of a connection: what it may send and receive, and what it has to say.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use vmint_guest_protocol::frame::{self, Kind, PAYLOAD_MAX_BYTES, Seal};
use vmint_guest_protocol::{WINDOW_BYTES, channel, message};

use super::inbox::Inbox;
use super::mux::Opening;
use crate::guest::WindowSize;

/// Credit is given back in portions: more than what is on its way to a taker, so that one who does not take gives none.
const CREDIT_PORTION_BYTES: u32 = WINDOW_BYTES / 2;
/// Channels from the guest.
const CHANNELS: usize = 2;

/// Who waits for something to happen to a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    /// Something has come.
    pub(super) taker: Arc<Notify>,
    /// What was given has been written.
    pub(super) giver: Arc<Notify>,
}

impl Waiters {
    pub(super) fn wake(&self) {
        self.taker.notify_one();
        self.giver.notify_one();
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) waiters: Waiters,
    pub(super) inbox: Inbox,
    pub(super) result: Option<Bytes>,
    /// What the guest may still send, and what it may be told to send, of each channel.
    may_come: [u32; CHANNELS],
    owed: [u32; CHANNELS],
    /// Whose credit is of no use any more. Beyond that, the end of a stream is its result.
    pub(super) has_ended: [bool; CHANNELS],
    /// What is to be written: first this, then as much of `outgoing` as there is credit for, then the end.
    pub(super) open: Option<Vec<u8>>,
    pub(super) outgoing: Bytes,
    pub(super) credit: u32,
    pub(super) end: Once,
    pub(super) resize: Option<WindowSize>,
    pub(super) cancel: Once,
    /// Since when it has no handle.
    pub(super) abandoned: Option<Instant>,
}

/// A frame that is written once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    Not,
    Wanted,
    Written,
}

impl Once {
    pub(super) fn want(&mut self) {
        if *self == Self::Not {
            *self = Self::Wanted;
        }
    }

    pub(super) fn take(&mut self) -> bool {
        let is_wanted = *self == Self::Wanted;
        if is_wanted {
            *self = Self::Written;
        }
        is_wanted
    }
}

impl Slot {
    pub(super) fn new(opening: Opening) -> Self {
        let Opening {
            object,
            input,
            is_whole,
        } = opening;
        Self {
            waiters: Waiters::default(),
            inbox: Inbox::default(),
            result: None,
            may_come: [WINDOW_BYTES; CHANNELS],
            owed: [0; CHANNELS],
            has_ended: [false; CHANNELS],
            open: Some(object),
            outgoing: input,
            credit: WINDOW_BYTES,
            end: if is_whole { Once::Wanted } else { Once::Not },
            resize: None,
            cancel: Once::Not,
            abandoned: None,
        }
    }

    /// Nothing when the guest has sent more than it may.
    pub(super) fn on_data(&mut self, at: usize, payload: &[u8]) -> Option<()> {
        let length = u32::try_from(payload.len()).ok()?;
        self.may_come[at] = self.may_come[at].checked_sub(length)?;
        if self.abandoned.is_some() {
            self.owed[at] += length;
        } else {
            self.inbox.push(channel_number(at), payload);
            self.waiters.taker.notify_one();
        }
        Some(())
    }

    /// What was taken may be sent again.
    pub(super) fn owe(&mut self, number: u8, length: usize) {
        if let (Some(at), Ok(length)) = (channel_index(number), u32::try_from(length)) {
            self.owed[at] += length;
        }
    }

    pub(super) fn takes_no_more(&self) -> bool {
        self.result.is_some() || self.end != Once::Not
    }

    /// Everything but data: it needs no credit.
    pub(super) fn write_control(&mut self, seal: &Seal, id: u16, out: &mut Vec<u8>) -> bool {
        if let Some(open) = self.open.take() {
            // At once: its parts are not mixed with those of another.
            message::write_open(out, seal, id, &open);
        } else if self.cancel.take() {
            frame::write(out, seal, id, Kind::Cancel, 0, &[]);
        } else if let Some(size) = self.resize.take() {
            let [r0, r1] = size.rows.to_le_bytes();
            let [c0, c1] = size.columns.to_le_bytes();
            frame::write(out, seal, id, Kind::Resize, 0, &[r0, r1, c0, c1]);
        } else if let Some(at) = self.credit_due() {
            let more = std::mem::take(&mut self.owed[at]);
            self.may_come[at] += more;
            frame::write(
                out,
                seal,
                id,
                Kind::Credit,
                channel_number(at),
                &more.to_le_bytes(),
            );
        } else {
            return false;
        }
        true
    }

    pub(super) fn credit_due(&self) -> Option<usize> {
        if self.result.is_some() {
            return None;
        }
        (0..CHANNELS).find(|&at| self.owed[at] >= CREDIT_PORTION_BYTES && !self.has_ended[at])
    }

    pub(super) fn has_data_to_write(&self) -> bool {
        let has_data = !self.outgoing.is_empty() && self.credit > 0;
        let has_end = self.outgoing.is_empty() && self.end == Once::Wanted;
        self.result.is_none() && (has_data || has_end)
    }

    pub(super) fn write_data(&mut self, seal: &Seal, id: u16, out: &mut Vec<u8>) -> bool {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        let length = self.outgoing.len().min(PAYLOAD_MAX_BYTES).min(credit);
        if length == 0 {
            let is_wanted = self.outgoing.is_empty() && self.end.take();
            if is_wanted {
                frame::write(out, seal, id, Kind::End, channel::INPUT, &[]);
            }
            return is_wanted;
        }
        let payload = self.outgoing.split_to(length);
        // No longer than the credit, which is a u32.
        self.credit -= u32::try_from(length).unwrap_or(self.credit);
        frame::write(out, seal, id, Kind::Data, channel::INPUT, &payload);
        if self.outgoing.is_empty() {
            self.waiters.giver.notify_one();
        }
        true
    }
}

pub(super) fn channel_index(number: u8) -> Option<usize> {
    match number {
        channel::OUTPUT => Some(0),
        channel::ERROR => Some(1),
        _ => None,
    }
}

fn channel_number(index: usize) -> u8 {
    if index == 0 {
        channel::OUTPUT
    } else {
        channel::ERROR
    }
}
