//! The command of a request, wherever one is named: in the body of an exec or of a process, in the first message of a
//! WebSocket, in its parameters. This file alone turns it into what the guest is asked for.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use vmint_cache::{ExecRequest, StreamRequest, WindowSize};

use super::checkout::parse_seconds;
use super::variables::{ExecEnv, check_exec_env};
use crate::http::bounded::List;
use crate::http::limits::{ARGV_MAX_WORDS, EXEC_OUTPUT_MAX_BYTES};
use crate::http::problem::Problem;

/// The size of a terminal whose client did not give one.
const WINDOW_DEFAULT: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

/// A program and its arguments, as they came.
pub(super) type Argv = List<String, ARGV_MAX_WORDS>;

/// A command as it came.
pub(super) struct RawCommand {
    pub(super) argv: Argv,
    pub(super) env: ExecEnv,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) timeout_ms: Option<f64>,
}

/// A command that a guest can be asked for.
pub(super) struct Command {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    timeout: Option<Duration>,
}

impl RawCommand {
    /// Checks all of it.
    ///
    /// # Errors
    /// The first thing that is wrong with it. No value of a variable is in it.
    pub(super) fn checked(self, longest: Duration) -> Result<Command, Problem> {
        let timeout = self.timeout_ms.map(|ms| parse_timeout(ms, longest));
        check_text("cwd", &self.cwd)?;
        check_text("user", &self.user)?;
        Ok(Command {
            argv: check_argv(self.argv)?,
            env: check_exec_env(self.env)?,
            cwd: (!self.cwd.is_empty()).then_some(self.cwd),
            user: (!self.user.is_empty()).then_some(self.user),
            timeout: timeout.transpose()?,
        })
    }
}

impl Command {
    /// The request for a command whose end is awaited.
    pub(super) fn awaited(self, stdin: Bytes, timeout_default: Duration) -> ExecRequest {
        ExecRequest {
            argv: self.argv,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            stdin,
            timeout: Some(self.timeout.unwrap_or(timeout_default)),
            max_output_bytes: EXEC_OUTPUT_MAX_BYTES,
        }
    }

    /// The request for a command with open streams.
    pub(super) fn streamed(self, stdin: bool, tty: Option<WindowSize>) -> StreamRequest {
        StreamRequest {
            argv: self.argv,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            stdin,
            tty,
            timeout: self.timeout,
            ..StreamRequest::default()
        }
    }
}

/// The size of the terminal, where there is one.
pub(super) fn window(
    tty: bool,
    rows: Option<NonZeroU16>,
    columns: Option<NonZeroU16>,
) -> Option<WindowSize> {
    tty.then(|| WindowSize {
        rows: rows.map_or(WINDOW_DEFAULT.rows, NonZeroU16::get),
        columns: columns.map_or(WINDOW_DEFAULT.columns, NonZeroU16::get),
    })
}

fn parse_timeout(timeout_ms: f64, longest: Duration) -> Result<Duration, Problem> {
    let timeout = parse_seconds("timeout_ms", timeout_ms / 1e3)?;
    if timeout < Duration::from_millis(1) {
        return Err(Problem::invalid("timeout_ms must be at least 1"));
    }
    if timeout > longest {
        let limit = longest.as_millis();
        return Err(Problem::not_possible(format!(
            "timeout_ms is above the limit of {limit}"
        )));
    }
    Ok(timeout)
}

fn check_argv(argv: Argv) -> Result<Vec<String>, Problem> {
    let argv = argv.within().ok_or_else(|| {
        Problem::not_possible(format!("argv is above the limit of {ARGV_MAX_WORDS} words"))
    })?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(Problem::invalid("argv must begin with a program"));
    }
    argv.iter().try_for_each(|word| check_text("argv", word))?;
    Ok(argv)
}

/// Refuses a zero byte, with which the guest's kernel ends its strings.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        return Err(Problem::invalid(format!(
            "{field} must not contain a zero byte"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::code::Code;

    fn command(change: impl FnOnce(&mut RawCommand)) -> Result<Command, Problem> {
        let mut raw = RawCommand {
            argv: vec!["echo".to_owned()].into(),
            env: ExecEnv::default(),
            cwd: String::new(),
            user: String::new(),
            timeout_ms: None,
        };
        change(&mut raw);
        raw.checked(Duration::from_secs(10))
    }

    #[test]
    fn a_command_asks_the_guest_for_the_same_whichever_way_it_runs() {
        let all = |raw: &mut RawCommand| {
            raw.cwd = "/tmp".to_owned();
            raw.user = "nobody".to_owned();
            raw.env = BTreeMap::from([("K".to_owned(), "v".to_owned())]).into();
            raw.timeout_ms = Some(1500.0);
        };
        let checked = || command(all).expect("valid");
        let exec = checked().awaited(Bytes::from_static(b"in"), Duration::MAX);
        let stream = checked().streamed(true, None);
        assert_eq!((&exec.argv, &exec.env), (&stream.argv, &stream.env));
        assert_eq!((&exec.cwd, &exec.user), (&stream.cwd, &stream.user));
        assert_eq!(exec.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(stream.timeout, exec.timeout);
        assert!(stream.bound_env, "the sandbox's variables are for its user");
        let plain = || command(|_| {}).expect("valid");
        let minute = Duration::from_secs(60);
        assert_eq!(plain().awaited(Bytes::new(), minute).timeout, Some(minute));
        assert_eq!(plain().streamed(false, None).timeout, None);
    }

    #[test]
    fn a_deadline_has_bounds() {
        let code = |ms| command(|raw| raw.timeout_ms = Some(ms)).err();
        let code = |ms| code(ms).map(|problem| problem.code());
        assert_eq!((code(1.0), code(10_000.0)), (None, None));
        assert_eq!(code(10_001.0), Some(Code::NotPossible));
        for ms in [0.0, 0.5, -1.0, f64::NAN] {
            assert_eq!(code(ms), Some(Code::InvalidRequest), "{ms}");
        }
    }

    #[test]
    fn a_terminal_has_a_size_where_there_is_one() {
        let size = |rows, columns| WindowSize { rows, columns };
        assert_eq!(window(false, NonZeroU16::new(1), None), None);
        assert_eq!(window(true, None, None), Some(size(24, 80)));
        assert_eq!(
            window(true, NonZeroU16::new(1), NonZeroU16::new(2)),
            Some(size(1, 2))
        );
    }
}
