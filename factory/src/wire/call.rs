//! A command on the wire.

use serde::Serialize;

/// A command by name, with its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a, A> {
    pub(crate) name: &'static str,
    arguments: &'a A,
    /// Whether the sentinel goes before it, which throws away what the other side has not understood yet.
    pub(super) delimited: bool,
    /// An id that the caller has taken, to speak of this very command later.
    pub(super) id: Option<u64>,
    /// Longest reply, where that may be longer than any line.
    pub(super) reply_max_bytes: usize,
}

/// What is written.
#[derive(Serialize)]
pub(super) struct Numbered<'a, A> {
    execute: &'static str,
    arguments: &'a A,
    id: u64,
}

impl<'a, A> Call<'a, A> {
    /// A command that has no generated type.
    pub(crate) fn named(name: &'static str, arguments: &'a A) -> Self {
        Self {
            name,
            arguments,
            delimited: false,
            id: None,
            reply_max_bytes: 0,
        }
    }

    /// The same, after a sentinel.
    pub(crate) fn delimited(self) -> Self {
        Self {
            delimited: true,
            ..self
        }
    }

    /// The same, of which the reply may have so many bytes.
    pub(crate) fn answered_within(self, reply_max_bytes: usize) -> Self {
        Self {
            reply_max_bytes,
            ..self
        }
    }

    /// The same, under an id of [`super::Link::take_id`].
    pub(crate) fn under(self, id: u64) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }

    pub(super) fn with_id(&self, id: u64) -> Numbered<'a, A> {
        Numbered {
            execute: self.name,
            arguments: self.arguments,
            id,
        }
    }
}

impl<'a, C: qapi_spec::Command> Call<'a, C> {
    /// One of the generated command types.
    pub(crate) fn of(command: &'a C) -> Self {
        Self::named(C::NAME, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_protocol_says() -> serde_json::Result<()> {
        let quit = serde_json::to_string(&Call::of(&qapi_qmp::quit {}).with_id(1))?;
        assert_eq!(quit, r#"{"execute":"quit","arguments":{},"id":1}"#);
        let sync =
            serde_json::to_string(&Call::of(&qapi_qga::guest_sync_delimited { id: 7 }).with_id(2))?;
        assert_eq!(
            sync,
            r#"{"execute":"guest-sync-delimited","arguments":{"id":7},"id":2}"#
        );
        Ok(())
    }
}
