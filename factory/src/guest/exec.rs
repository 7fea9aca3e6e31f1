//! Commands in the guest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::GuestError;
use super::agent::{Agent, AgentKind, reply_with_output};
use super::cancel::Cancel;
use super::exec_report::{AgentReport, Ended, from_helper};
use crate::Argv;
use crate::wire::Call;

/// How much longer than the command's own deadline its end is waited for: the helper kills it in the guest.
pub(super) const GRACE: Duration = Duration::from_secs(10);
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
    /// The guest's user it runs as: a name or a number; the agent's own (root) when it is none.
    pub user: Option<String>,
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
        Self {
            argv,
            timeout: Some(timeout),
            max_output_bytes: Self::MAX_OUTPUT_BYTES,
            ..Self::default()
        }
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

/// What a command had written when its time was over.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartialOutput {
    /// The newest part of what is kept of its output.
    pub stdout: Vec<u8>,
    /// The same of its error stream.
    pub stderr: Vec<u8>,
    /// Whether there was more of either.
    pub truncated: bool,
}

impl PartialOutput {
    /// What is told of each stream with an error.
    pub const MAX_BYTES: usize = 1 << 20;

    /// The newest part of each stream.
    #[must_use]
    pub fn newest(stdout: Vec<u8>, stderr: Vec<u8>, truncated: bool) -> Self {
        let is_cut = [&stdout, &stderr]
            .iter()
            .any(|it| it.len() > Self::MAX_BYTES);
        Self {
            stdout: newest(stdout),
            stderr: newest(stderr),
            truncated: truncated || is_cut,
        }
    }
}

/// Output is the user's: no log has it.
impl fmt::Debug for PartialOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        write!(f, "{stdout} + {stderr} bytes")
    }
}

/// The last bytes of a stream; a text does not begin within a character.
fn newest(mut bytes: Vec<u8>) -> Vec<u8> {
    let surplus = bytes.len().saturating_sub(PartialOutput::MAX_BYTES);
    if surplus > 0 {
        let is_rest = |byte: &&u8| **byte & 0xC0 == 0x80;
        let rest = bytes[surplus..].iter().take(3).take_while(is_rest).count();
        bytes.drain(..surplus + rest);
    }
    bytes
}

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
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
        /// What it had written by then.
        output: Box<PartialOutput>,
    },
    /// As many processes run in the guest as may.
    #[error("{limit} processes run in the sandbox already, which is the limit; hint: end one")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The request cannot be passed on.
    #[error("the command cannot be passed to the guest: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The guest's agent cannot do it.
    #[error("{what} is not possible: {reason}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why not.
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
    /// A dropped call kills the command, with its descendants, a moment later. Stock `qemu-ga` cannot: there it runs
    /// until its own deadline.
    pub(crate) async fn exec(&self, request: &ExecRequest) -> Result<ExecOutcome, ExecError> {
        self.exec_in_turn(request, None).await
    }

    /// The same; `turn` is kept until the guest has nothing to do with the command any more.
    pub(crate) async fn exec_in_turn(
        &self,
        request: &ExecRequest,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<ExecOutcome, ExecError> {
        refuse_invalid(request)?;
        let timeout = request
            .timeout
            .unwrap_or(ExecRequest::LONGEST)
            .min(ExecRequest::LONGEST);
        let begun = Instant::now();
        let ended = match self.kind {
            AgentKind::VmintAgent => {
                let arguments = Arguments::new(request, timeout);
                let running = Cancel::unless_answered(self, turn);
                let call = Call::named("vmint-exec", &arguments)
                    .under(running.request)
                    .answered_within(reply_with_output(output_cap(request)));
                let answer = self.call(call, timeout + GRACE).await;
                if !matches!(answer, Err(GuestError::Silent { .. })) {
                    running.answered();
                }
                let report: AgentReport = answer?;
                report.decode()?
            }
            AgentKind::QemuGa => {
                refuse_user(request.user.as_deref())?;
                let input = (!request.stdin.is_empty()).then(|| request.stdin.clone());
                from_helper(
                    self.run_helper("run", helper_args(request, timeout), input, timeout + GRACE)
                        .await?,
                )?
            }
        };
        outcome(request, ended, timeout, begun.elapsed())
    }
}

fn outcome(
    request: &ExecRequest,
    ended: Ended,
    timeout: Duration,
    elapsed: Duration,
) -> Result<ExecOutcome, ExecError> {
    let Ended {
        report,
        stdout,
        stderr,
    } = ended;
    if let Some(failure) = report.spawn_error {
        let argv0 = request.argv.first().cloned().unwrap_or_default();
        return Err(ExecError::Spawn {
            argv0,
            reason: failure.message,
            errno: failure.errno,
        });
    }
    let truncated = report.stdout_truncated || report.stderr_truncated;
    if report.timed_out {
        let output = PartialOutput::newest(stdout, stderr, truncated);
        return Err(ExecError::Deadline {
            after: timeout,
            output: Box::new(output),
        });
    }
    Ok(ExecOutcome {
        exit_code: report.exit_code,
        signal: report.signal,
        stdout,
        stderr,
        truncated,
        elapsed,
    })
}

/// The helper runs as the agent does.
fn refuse_user(user: Option<&str>) -> Result<(), ExecError> {
    match user {
        None => Ok(()),
        Some(_) => Err(ExecError::Unsupported {
            what: "running a command as another user",
            reason: super::STOCK_AGENT.to_owned(),
        }),
    }
}

fn refuse_invalid(request: &ExecRequest) -> Result<(), ExecError> {
    let ExecRequest {
        argv,
        env,
        cwd,
        user,
        ..
    } = request;
    refuse_unspeakable(argv, env, cwd.as_deref(), user.as_deref())
}

/// Refuses what Linux would not pass to a program, before the guest is asked.
pub(super) fn refuse_unspeakable(
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: Option<&str>,
    user: Option<&str>,
) -> Result<(), ExecError> {
    let invalid = |reason: String| Err(ExecError::Invalid { reason });
    if argv.first().is_none_or(String::is_empty) {
        return invalid("argv names no program".to_owned());
    }
    if let Some(name) = env
        .keys()
        .find(|name| name.is_empty() || name.contains('='))
    {
        return invalid(format!("{name:?} is no name of an environment variable"));
    }
    let texts = || {
        argv.iter()
            .chain(env.keys())
            .chain(env.values())
            .map(String::as_str)
            .chain(cwd)
            .chain(user)
    };
    if texts().any(|text| text.contains('\0')) {
        return invalid(
            "an argument, a variable, the directory or the user holds a NUL byte".to_owned(),
        );
    }
    let longest = texts().map(str::len).max().unwrap_or(0);
    if longest > MAX_ARGUMENT_BYTES {
        return invalid(format!(
            "an argument or a variable has {longest} bytes; Linux takes {MAX_ARGUMENT_BYTES}"
        ));
    }
    Ok(())
}

fn output_cap(request: &ExecRequest) -> u64 {
    request.max_output_bytes.min(ExecRequest::MAX_OUTPUT_BYTES)
}

/// A request as our own agent reads it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Arguments<'a> {
    argv: &'a [String],
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stdin: String,
    timeout_ms: u64,
    max_output: u64,
}

impl<'a> Arguments<'a> {
    fn new(request: &'a ExecRequest, timeout: Duration) -> Self {
        Self {
            argv: &request.argv,
            env: &request.env,
            cwd: request.cwd.as_deref(),
            user: request.user.as_deref(),
            stdin: BASE64_STANDARD.encode(&request.stdin),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            max_output: output_cap(request),
        }
    }
}

/// A request as the helper reads it.
fn helper_args(request: &ExecRequest, timeout: Duration) -> Vec<String> {
    let mut args = vec![
        "run".to_owned(),
        "--timeout-ms".to_owned(),
        timeout.as_millis().to_string(),
    ];
    args.extend(["--max-output".to_owned(), output_cap(request).to_string()]);
    if let Some(cwd) = &request.cwd {
        args.extend(["--cwd".to_owned(), cwd.clone()]);
    }
    for (name, value) in &request.env {
        args.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    args.push("--".to_owned());
    args.extend(request.argv.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExecRequest {
        ExecRequest::new(vec!["sh".into()], Duration::from_secs(1))
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
            let got = refuse_invalid(&request);
            assert!(
                matches!(got, Err(ExecError::Invalid { .. })),
                "{:?}",
                request.argv.first()
            );
        }
        assert!(refuse_invalid(&request()).is_ok());
    }

    #[test]
    fn a_command_whose_time_is_over_leaves_the_newest_of_its_output() {
        let report = r#"{"exit_code":null,"signal":9,"stdout_truncated":false,"stderr_truncated":false,
            "timed_out":true,"spawn_error":null}"#;
        let ended = |stdout: &[u8]| Ended {
            report: serde_json::from_str(report).expect("a report"),
            stdout: stdout.to_vec(),
            stderr: b"err".to_vec(),
        };
        let output = |stdout: &[u8]| {
            let long = Duration::from_secs(1);
            match outcome(&request(), ended(stdout), long, long) {
                Err(ExecError::Deadline { output, .. }) => *output,
                other => panic!("{other:?}"),
            }
        };
        let short = output(b"so far");
        assert_eq!(
            (&*short.stdout, &*short.stderr),
            (&b"so far"[..], &b"err"[..])
        );
        assert!(!short.truncated);
        let text = "ä".repeat(PartialOutput::MAX_BYTES / 2) + "x";
        let long = output(text.as_bytes());
        assert!(long.truncated && long.stdout.len() < PartialOutput::MAX_BYTES);
        assert!(std::str::from_utf8(&long.stdout).is_ok_and(|it| it.ends_with("äx")));
    }

    #[test]
    fn a_request_is_written_for_either_agent() -> serde_json::Result<()> {
        let mut request = request();
        request.env.insert("A".into(), "1 2".into());
        request.cwd = Some("/tmp".into());
        request.stdin = b"hi".to_vec();
        let own = serde_json::to_string(&Arguments::new(&request, Duration::from_secs(1)))?;
        assert_eq!(
            own,
            r#"{"argv":["sh"],"env":{"A":"1 2"},"cwd":"/tmp","stdin":"aGk=","timeout-ms":1000,"max-output":8388608}"#
        );
        let stock = helper_args(&request, Duration::from_secs(1)).join("|");
        assert_eq!(
            stock,
            "run|--timeout-ms|1000|--max-output|8388608|--cwd|/tmp|--env|A=1 2|--|sh"
        );
        Ok(())
    }
}
