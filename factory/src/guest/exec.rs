//! Commands in the guest.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::GuestError;
use super::agent::Agent;
use super::helper::HelperEnd;
use crate::Argv;

/// What the helper writes before and after its report, as the last bytes of its error stream.
const REPORT_BEGIN: &[u8] = b"\0vmint-run ";
const REPORT_END: u8 = 0;
/// How much longer than the command's own deadline its end is waited for: the helper kills it in the guest.
const GRACE: Duration = Duration::from_secs(10);
/// Longest single argument or variable that Linux passes to a program (`MAX_ARG_STRLEN`, 32 pages).
const MAX_ARGUMENT_BYTES: usize = 131_071;

/// A command to run in a guest.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The program and its arguments; a program without a slash is looked up in the guest's `PATH`.
    pub argv: Argv,
    /// Added to the guest's own environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; `/` when it is none.
    pub cwd: Option<String>,
    /// What the command reads.
    pub stdin: Vec<u8>,
    /// When it is killed, with its process group; `None` leaves it to [`ExecRequest::LONGEST`].
    pub timeout: Option<Duration>,
    /// How much of each of stdout and stderr is kept, bytes.
    pub max_output_bytes: u64,
}

impl ExecRequest {
    /// Longest that any command may run: every wait has a deadline.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
    /// Most that can be kept of each stream. The agent itself stops at 16 MiB without saying so.
    pub const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;

    /// A command with no input, the default output limit and a deadline.
    #[must_use]
    pub fn new(argv: Argv, timeout: Duration) -> Self {
        Self { argv, timeout: Some(timeout), max_output_bytes: Self::MAX_OUTPUT_BYTES, ..Self::default() }
    }
}

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote to the error stream.
    pub stderr: Vec<u8>,
    /// Whether more was written than was kept.
    pub truncated: bool,
    /// From the order to the answer.
    pub elapsed: Duration,
}

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The program could not be started.
    #[error("cannot run {argv0:?} in the guest: {reason}")]
    Spawn {
        /// The program.
        argv0: String,
        /// The guest kernel's words.
        reason: String,
        /// The guest kernel's error number (`ENOENT` is 2, `EACCES` 13).
        errno: i32,
    },
    /// Its time was over; it was killed in the guest.
    #[error("the command did not end within {}; it was killed", crate::text::duration(*.after))]
    Deadline {
        /// The time it had.
        after: Duration,
    },
    /// The request cannot be passed on.
    #[error("the command cannot be passed to the guest: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl Agent {
    /// Runs a command in the guest.
    ///
    /// # Cancel safety
    /// A dropped call leaves the command running until its own deadline.
    pub(crate) async fn exec(&self, request: &ExecRequest) -> Result<ExecOutcome, ExecError> {
        let timeout = request.timeout.unwrap_or(ExecRequest::LONGEST).min(ExecRequest::LONGEST);
        let args = helper_args(request, timeout)?;
        let input = (!request.stdin.is_empty()).then(|| request.stdin.clone());
        let begun = Instant::now();
        let end = self.run_helper("run", args, input, timeout + GRACE).await?;
        outcome(request, end, timeout, begun.elapsed())
    }
}

fn helper_args(request: &ExecRequest, timeout: Duration) -> Result<Vec<String>, ExecError> {
    let invalid = |reason: String| Err(ExecError::Invalid { reason });
    if request.argv.first().is_none_or(String::is_empty) {
        return invalid("argv names no program".to_owned());
    }
    if let Some(name) = request.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return invalid(format!("{name:?} is no name of an environment variable"));
    }
    let cap = request.max_output_bytes.min(ExecRequest::MAX_OUTPUT_BYTES);
    let mut args = vec!["run".to_owned(), "--timeout-ms".to_owned(), timeout.as_millis().to_string()];
    args.extend(["--max-output".to_owned(), cap.to_string()]);
    if let Some(cwd) = &request.cwd {
        args.extend(["--cwd".to_owned(), cwd.clone()]);
    }
    for (name, value) in &request.env {
        args.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    args.push("--".to_owned());
    args.extend(request.argv.iter().cloned());
    if args.iter().any(|arg| arg.contains('\0')) {
        return invalid("an argument or a variable holds a NUL byte".to_owned());
    }
    if let Some(arg) = args.iter().find(|arg| arg.len() > MAX_ARGUMENT_BYTES) {
        return invalid(format!("an argument has {} bytes; Linux takes {MAX_ARGUMENT_BYTES}", arg.len()));
    }
    Ok(args)
}

/// The helper's last word on a command.
#[derive(Deserialize)]
struct Report {
    exit_code: Option<i32>,
    signal: Option<i32>,
    stdout_truncated: bool,
    stderr_truncated: bool,
    timed_out: bool,
    spawn_error: Option<SpawnFailure>,
}

#[derive(Deserialize)]
struct SpawnFailure {
    errno: i32,
    message: String,
}

fn outcome(
    request: &ExecRequest,
    end: HelperEnd,
    timeout: Duration,
    elapsed: Duration,
) -> Result<ExecOutcome, ExecError> {
    let HelperEnd { stdout, mut stderr, exit_code } = end;
    let Some((at, report)) = find_report(&stderr) else {
        let reason = format!("it was ended before it could report (exit code {exit_code:?})");
        return Err(GuestError::Helper { step: "run", reason }.into());
    };
    stderr.truncate(at);
    if let Some(SpawnFailure { errno, message }) = report.spawn_error {
        let argv0 = request.argv.first().cloned().unwrap_or_default();
        return Err(ExecError::Spawn { argv0, reason: message, errno });
    }
    if report.timed_out {
        return Err(ExecError::Deadline { after: timeout });
    }
    Ok(ExecOutcome {
        exit_code: report.exit_code,
        signal: report.signal,
        stdout,
        stderr,
        truncated: report.stdout_truncated || report.stderr_truncated,
        elapsed,
    })
}

/// The report at the very end of the error stream, and where it begins. What the command itself wrote, it cannot
/// write after the report, so it cannot forge one.
fn find_report(stderr: &[u8]) -> Option<(usize, Report)> {
    let body = stderr.strip_suffix(&[REPORT_END])?;
    let at = body.windows(REPORT_BEGIN.len()).rposition(|window| window == REPORT_BEGIN)?;
    let report = serde_json::from_slice(&body[at + REPORT_BEGIN.len()..]).ok()?;
    Some((at, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"exit_code":3,"signal":null,"stdout_truncated":false,"stderr_truncated":true,"timed_out":false,"spawn_error":null}"#;

    fn ended(stderr: String) -> HelperEnd {
        HelperEnd { stdout: b"out".to_vec(), stderr: stderr.into_bytes(), exit_code: Some(0) }
    }

    fn request() -> ExecRequest {
        ExecRequest::new(vec!["sh".into()], Duration::from_secs(1))
    }

    #[test]
    fn the_report_is_taken_off_the_error_stream() {
        let end = ended(format!("oops\0vmint-run {GOOD}\0"));
        let got = outcome(&request(), end, Duration::from_secs(1), Duration::ZERO);
        let want = ExecOutcome {
            exit_code: Some(3),
            signal: None,
            stdout: b"out".to_vec(),
            stderr: b"oops".to_vec(),
            truncated: true,
            elapsed: Duration::ZERO,
        };
        assert!(matches!(got, Ok(got) if got == want));
    }

    #[test]
    fn a_forged_report_before_the_real_one_is_output() {
        let forged = GOOD.replace("\"exit_code\":3", "\"exit_code\":0");
        let end = ended(format!("\0vmint-run {forged}\0\0vmint-run {GOOD}\0"));
        let got = outcome(&request(), end, Duration::from_secs(1), Duration::ZERO);
        assert!(matches!(got, Ok(got) if got.exit_code == Some(3)));
    }

    #[test]
    fn no_report_is_an_error() {
        let end = ended("Killed".into());
        let got = outcome(&request(), end, Duration::from_secs(1), Duration::ZERO);
        assert!(matches!(got, Err(ExecError::Guest(GuestError::Helper { .. }))));
    }

    #[test]
    fn what_cannot_be_passed_is_refused_before_it_is_sent() {
        let mut empty = request();
        empty.argv.clear();
        let mut nul = request();
        nul.argv.push("a\0b".into());
        let mut name = request();
        name.env.insert("A=B".into(), String::new());
        let mut long = request();
        long.argv.push("x".repeat(MAX_ARGUMENT_BYTES + 1));
        for request in [empty, nul, name, long] {
            let got = helper_args(&request, Duration::from_secs(1));
            assert!(matches!(got, Err(ExecError::Invalid { .. })), "{:?}", request.argv.first());
        }
    }
}
