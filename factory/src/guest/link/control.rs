//! Requests on stream 0, and who waits for which reply.
//!
//! Requests are written in the order in which they came. A reply is known by its id; one that is not waited for any
//! longer is passed over.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use tokio::sync::oneshot;
use vmint_guest_protocol::frame::{self, CONTROL, Kind, PAYLOAD_MAX_BYTES, Seal};
use vmint_guest_protocol::message::{LAST, MORE, Parts, REPLY_MAX_BYTES};

/// A request that is not written whole.
#[derive(Debug)]
struct Request {
    id: u64,
    message: Vec<u8>,
    written: usize,
}

/// The control messages of one connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    last_id: u64,
    outgoing: VecDeque<Request>,
    waiting: HashMap<u64, oneshot::Sender<Vec<u8>>>,
    parts: Parts,
}

impl Control {
    /// An id that no other request of the connection has.
    pub(super) fn take_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Queues a request. The reply is sent as it comes.
    pub(super) fn ask(&mut self, id: u64, message: Vec<u8>, reply: oneshot::Sender<Vec<u8>>) {
        self.waiting.insert(id, reply);
        self.outgoing.push_back(Request {
            id,
            message,
            written: 0,
        });
    }

    /// The reply is of no use any more. What was not begun to be written is not sent.
    pub(super) fn forget(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.outgoing.retain(|it| it.id != id || it.written > 0);
    }

    /// Nobody will be answered.
    pub(super) fn lose(&mut self) {
        *self = Self::default();
    }

    /// Appends the next part of the oldest request, and says whether there was one.
    pub(super) fn write_next(&mut self, seal: &Seal, out: &mut Vec<u8>) -> bool {
        let Some(request) = self.outgoing.front_mut() else {
            return false;
        };
        let rest = &request.message[request.written..];
        let (part, is_last) = match rest.split_at_checked(PAYLOAD_MAX_BYTES) {
            Some((part, later)) => (part, later.is_empty()),
            None => (rest, true),
        };
        let channel = if is_last { LAST } else { MORE };
        frame::write(out, seal, CONTROL, Kind::Message, channel, part);
        request.written += part.len();
        if is_last {
            self.outgoing.pop_front();
        }
        true
    }

    /// Takes a part of a reply.
    ///
    /// # Errors
    /// What is wrong with it, when it is no reply.
    pub(super) fn on_message(&mut self, channel: u8, payload: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Envelope {
            id: u64,
        }
        let message = self.parts.take(channel, payload, REPLY_MAX_BYTES);
        let Some(message) = message.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let envelope: Envelope = serde_json::from_slice(message)
            .map_err(|error| format!("a reply cannot be read: {error}"))?;
        match self.waiting.remove(&envelope.id) {
            // The caller may have gone; then the reply is out of the way.
            Some(reply) => drop(reply.send(message.to_vec())),
            None => tracing::trace!(id = envelope.id, "a reply that is not waited for"),
        }
        Ok(())
    }
}
