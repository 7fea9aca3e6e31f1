//! A command on the wire.

use serde::Serialize;

/// One of the generated command types, by name and with its arguments.
#[derive(Serialize)]
pub(crate) struct Call<'a, C> {
    execute: &'static str,
    arguments: &'a C,
}

impl<'a, C: qapi_spec::Command> Call<'a, C> {
    pub(crate) fn of(command: &'a C) -> Self {
        Self { execute: C::NAME, arguments: command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_protocol_says() -> serde_json::Result<()> {
        let quit = serde_json::to_string(&Call::of(&qapi_qmp::quit {}))?;
        assert_eq!(quit, r#"{"execute":"quit","arguments":{}}"#);
        let sync = serde_json::to_string(&Call::of(&qapi_qga::guest_sync_delimited { id: 7 }))?;
        assert_eq!(sync, r#"{"execute":"guest-sync-delimited","arguments":{"id":7}}"#);
        Ok(())
    }
}
