//! What the other side has said: one line, and what it is.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::link::LinkError;

/// An event that the monitor reported by itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    /// Its name.
    #[serde(rename = "event")]
    pub(crate) name: String,
    /// Its data.
    #[serde(default)]
    pub(crate) data: serde_json::Value,
}

/// What a line is.
pub(super) enum Kind {
    Reply(Option<u64>),
    Event(Event),
    Greeting,
}

/// Tells replies, events and the monitor's greeting apart, whatever else they hold.
pub(super) fn classify(line: &[u8]) -> Result<Kind, LinkError> {
    #[derive(Deserialize)]
    struct Keys {
        #[serde(rename = "return")]
        return_: Option<serde::de::IgnoredAny>,
        error: Option<serde::de::IgnoredAny>,
        event: Option<serde::de::IgnoredAny>,
        #[serde(rename = "QMP")]
        greeting: Option<serde::de::IgnoredAny>,
        id: Option<u64>,
    }
    let malformed = |e: serde_json::Error| LinkError::Malformed {
        reason: format!("{e}: {}", excerpt(line)),
    };
    let keys: Keys = serde_json::from_slice(line).map_err(malformed)?;
    if keys.event.is_some() {
        return Ok(Kind::Event(
            serde_json::from_slice(line).map_err(malformed)?,
        ));
    }
    if keys.greeting.is_some() {
        return Ok(Kind::Greeting);
    }
    if keys.return_.is_some() || keys.error.is_some() {
        return Ok(Kind::Reply(keys.id));
    }
    // `{"return": null}` does not exist in the protocol, so what is left is nothing we know.
    Err(LinkError::Malformed {
        reason: excerpt(line),
    })
}

/// A reply, as the monitor and the guest's agent write one: an answer or an error.
#[derive(Deserialize)]
pub(crate) struct Reply<T, E> {
    #[serde(rename = "return")]
    answer: Option<T>,
    error: Option<E>,
}

impl<T, E> Reply<T, E> {
    /// Which of both it is; `None` for neither.
    pub(crate) fn outcome(self) -> Option<Result<T, E>> {
        match (self.error, self.answer) {
            (Some(error), _) => Some(Err(error)),
            (None, answer) => answer.map(Ok),
        }
    }
}

/// What a reply brings, or why it does not.
pub(super) fn parse_reply<T: DeserializeOwned>(line: &[u8]) -> Result<T, LinkError> {
    #[derive(Deserialize)]
    struct Refusal {
        desc: String,
    }
    let malformed = |reason: String| LinkError::Malformed { reason };
    let reply: Reply<T, Refusal> = serde_json::from_slice(line)
        .map_err(|error| malformed(format!("{error}: {}", excerpt(line))))?;
    match reply.outcome() {
        Some(outcome) => outcome.map_err(|refusal| LinkError::Refused(refusal.desc)),
        None => Err(malformed(excerpt(line))),
    }
}

/// The beginning of a line, for a message.
pub(super) fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    let shown = &line[..line.len().min(SHOWN_BYTES)];
    let more = if line.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}
