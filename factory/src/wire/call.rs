//! A command on the wire.

use serde::Serialize;

/// A command by name, with its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a, A> {
    name: &'static str,
    arguments: &'a A,
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
        Self { name, arguments }
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
        Ok(())
    }
}
