//! The command line of `helper run`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

/// Kept bytes of each stream where `--max-output` is not given. `qemu-ga` itself keeps 16 MiB of a stream and says
/// nothing when it drops the rest, so the cap must stay below that.
const DEFAULT_MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;

/// What to run, and its limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `None`: no deadline.
    pub(super) timeout: Option<Duration>,
    pub(super) max_output_bytes: u64,
    pub(super) cwd: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Unknown(OsString),
    NoValue(&'static str),
    NotANumber(&'static str),
    NotKeyValue(OsString),
    NoProgram,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "unknown option {option:?}"),
            Self::NoValue(option) => write!(f, "{option} needs a value"),
            Self::NotANumber(option) => write!(f, "{option} needs a whole number"),
            Self::NotKeyValue(text) => write!(f, "--env needs KEY=VALUE, not {text:?}"),
            Self::NoProgram => write!(f, "no program after --"),
        }
    }
}

pub(super) fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Request, Wrong> {
    let mut timeout_ms = 0;
    let mut max_output_bytes = DEFAULT_MAX_OUTPUT_BYTES;
    let mut cwd = PathBuf::from("/");
    let mut env = Vec::new();
    loop {
        let option = args.next().ok_or(Wrong::NoProgram)?;
        match option.to_str() {
            Some("--timeout-ms") => timeout_ms = number("--timeout-ms", args.next())?,
            Some("--max-output") => max_output_bytes = number("--max-output", args.next())?,
            Some("--cwd") => cwd = args.next().ok_or(Wrong::NoValue("--cwd"))?.into(),
            Some("--env") => env.push(key_value(args.next().ok_or(Wrong::NoValue("--env"))?)?),
            Some("--") => break,
            _ => return Err(Wrong::Unknown(option)),
        }
    }
    let program = args
        .next()
        .filter(|program| !program.is_empty())
        .ok_or(Wrong::NoProgram)?;
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
    Ok(Request {
        timeout,
        max_output_bytes,
        cwd,
        env,
        program,
        args: args.collect(),
    })
}

fn number(option: &'static str, value: Option<OsString>) -> Result<u64, Wrong> {
    let value = value.ok_or(Wrong::NoValue(option))?;
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or(Wrong::NotANumber(option))
}

fn key_value(text: OsString) -> Result<(OsString, OsString), Wrong> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) if at > 0 => Ok((
            OsStr::from_bytes(&bytes[..at]).to_owned(),
            OsString::from_vec(bytes[at + 1..].to_vec()),
        )),
        _ => Err(Wrong::NotKeyValue(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Request, Wrong> {
        parse(line.iter().map(OsString::from))
    }

    #[test]
    fn takes_everything() {
        let line = [
            "--timeout-ms",
            "1500",
            "--max-output",
            "10",
            "--cwd",
            "/tmp",
            "--env",
            "A=b=c",
            "--env",
            "E=",
            "--",
            "ls",
            "--",
            "-l",
        ];
        let request = parsed(&line).expect("a right command line");
        assert_eq!(request.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(request.max_output_bytes, 10);
        assert_eq!(request.cwd, PathBuf::from("/tmp"));
        assert_eq!(
            request.env,
            [("A".into(), "b=c".into()), ("E".into(), "".into())]
        );
        assert_eq!(
            (request.program, request.args),
            ("ls".into(), vec!["--".into(), "-l".into()])
        );
    }

    #[test]
    fn has_defaults() {
        let request = parsed(&["--timeout-ms", "0", "--", "ls"]).expect("a right command line");
        assert_eq!(request.timeout, None);
        assert_eq!(request.cwd, PathBuf::from("/"));
        assert_eq!(request.max_output_bytes, DEFAULT_MAX_OUTPUT_BYTES);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(parsed(&[]), Err(Wrong::NoProgram));
        assert_eq!(parsed(&["--"]), Err(Wrong::NoProgram));
        assert_eq!(parsed(&["--", ""]), Err(Wrong::NoProgram));
        assert_eq!(parsed(&["ls"]), Err(Wrong::Unknown("ls".into())));
        assert_eq!(parsed(&["--cwd"]), Err(Wrong::NoValue("--cwd")));
        assert_eq!(
            parsed(&["--timeout-ms", "-1", "--", "ls"]),
            Err(Wrong::NotANumber("--timeout-ms"))
        );
        assert_eq!(
            parsed(&["--env", "=x", "--", "ls"]),
            Err(Wrong::NotKeyValue("=x".into()))
        );
        assert_eq!(
            parsed(&["--env", "A", "--", "ls"]),
            Err(Wrong::NotKeyValue("A".into()))
        );
    }
}
