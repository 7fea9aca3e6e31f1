//! The record at the end of stderr that says how the run ended.
//!
//! `qemu-ga` reports an exit code and nothing else, so what it cannot say travels here:
//! `\0vmint-run {json}\0`, always the very last bytes.

use crate::command::SpawnError;
use crate::json::Object;
use crate::sys::Ended;

const PREFIX: &str = "\0vmint-run ";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) ended: Option<Ended>,
    pub(super) stdout_truncated: bool,
    pub(super) stderr_truncated: bool,
    pub(super) timed_out: bool,
    pub(super) spawn_error: Option<SpawnError>,
}

impl Trailer {
    pub(super) fn not_spawned(error: SpawnError) -> Self {
        Self {
            spawn_error: Some(error),
            ..Self::default()
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (exit_code, signal) = match self.ended {
            Some(Ended::Exited(code)) => (Some(code), None),
            Some(Ended::Signalled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let spawn_error = self.spawn_error.as_ref();
        let spawn_error = spawn_error.map(|e| {
            Object::new()
                .number("errno", e.errno)
                .string("message", &e.message)
                .end()
        });
        let json = Object::new()
            .number_or_null("exit_code", exit_code)
            .number_or_null("signal", signal)
            .flag("stdout_truncated", self.stdout_truncated)
            .flag("stderr_truncated", self.stderr_truncated)
            .flag("timed_out", self.timed_out)
            .json("spawn_error", spawn_error.as_deref().unwrap_or("null"))
            .end();
        format!("{PREFIX}{json}\0").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn text(trailer: &Trailer) -> String {
        String::from_utf8(trailer.to_bytes()).expect("JSON is text")
    }

    #[test]
    fn after_an_exit() {
        let trailer = Trailer {
            ended: Some(Ended::Exited(0)),
            ..Trailer::default()
        };
        let expected = "\0vmint-run {\"exit_code\":0,\"signal\":null,\"stdout_truncated\":false,\"stderr_truncated\":false,\"timed_out\":false,\"spawn_error\":null}\0";
        assert_eq!(text(&trailer), expected);
    }

    #[test]
    fn after_a_deadline() {
        let trailer = Trailer {
            ended: Some(Ended::Signalled(9)),
            stdout_truncated: true,
            timed_out: true,
            ..Trailer::default()
        };
        let expected = "\0vmint-run {\"exit_code\":null,\"signal\":9,\"stdout_truncated\":true,\"stderr_truncated\":false,\"timed_out\":true,\"spawn_error\":null}\0";
        assert_eq!(text(&trailer), expected);
    }

    #[test]
    fn without_a_program() {
        let trailer = Trailer::not_spawned(SpawnError::new("", &io::Error::from_raw_os_error(2)));
        assert!(
            text(&trailer).contains(
                "\"spawn_error\":{\"errno\":2,\"message\":\"No such file or directory\"}"
            )
        );
    }
}
