//! What either agent says of a command that has ended.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;

use super::GuestError;
use super::helper::HelperEnd;

/// What the helper writes before and after its report, as the last bytes of its error stream.
const REPORT_BEGIN: &[u8] = b"\0vmint-run ";
const REPORT_END: u8 = 0;

/// How a command ended.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) stdout_truncated: bool,
    pub(super) stderr_truncated: bool,
    pub(super) timed_out: bool,
    pub(super) spawn_error: Option<SpawnFailure>,
}

/// Why a program was not executed.
#[derive(Debug, Deserialize)]
pub(super) struct SpawnFailure {
    pub(super) errno: i32,
    pub(super) message: String,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) report: Report,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// The same as our own agent says it.
#[derive(Deserialize)]
pub(super) struct AgentReport {
    #[serde(flatten)]
    report: Report,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
}

impl AgentReport {
    pub(super) fn decode(self) -> Result<Ended, GuestError> {
        let bytes = |text: String| {
            BASE64_STANDARD.decode(text).map_err(|e| GuestError::Proof {
                step: "vmint-exec",
                reason: e.to_string(),
            })
        };
        Ok(Ended {
            report: self.report,
            stdout: bytes(self.stdout)?,
            stderr: bytes(self.stderr)?,
        })
    }
}

/// Takes the helper's report off the end of its error stream. What the command itself wrote, it cannot have written
/// after the report, so it cannot forge one.
pub(super) fn from_helper(end: HelperEnd) -> Result<Ended, GuestError> {
    let HelperEnd {
        stdout,
        mut stderr,
        exit_code,
    } = end;
    let Some((at, report)) = find_report(&stderr) else {
        let reason = format!("it was ended before it could report (exit code {exit_code:?})");
        return Err(GuestError::Helper {
            step: "run",
            reason,
        });
    };
    stderr.truncate(at);
    Ok(Ended {
        report,
        stdout,
        stderr,
    })
}

fn find_report(stderr: &[u8]) -> Option<(usize, Report)> {
    let body = stderr.strip_suffix(&[REPORT_END])?;
    let at = body
        .windows(REPORT_BEGIN.len())
        .rposition(|window| window == REPORT_BEGIN)?;
    let report = serde_json::from_slice(&body[at + REPORT_BEGIN.len()..]).ok()?;
    Some((at, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"exit_code":3,"signal":null,"stdout_truncated":false,"stderr_truncated":true,"timed_out":false,"spawn_error":null}"#;

    fn helper(stderr: String) -> HelperEnd {
        HelperEnd {
            stdout: b"out".to_vec(),
            stderr: stderr.into_bytes(),
            exit_code: Some(0),
        }
    }

    #[test]
    fn the_report_is_taken_off_the_error_stream() -> Result<(), GuestError> {
        let ended = from_helper(helper(format!("oops\0vmint-run {GOOD}\0")))?;
        assert_eq!(
            (ended.stdout.as_slice(), ended.stderr.as_slice()),
            (&b"out"[..], &b"oops"[..])
        );
        assert_eq!(ended.report.exit_code, Some(3));
        assert!(ended.report.stderr_truncated);
        Ok(())
    }

    #[test]
    fn a_forged_report_before_the_real_one_is_output() -> Result<(), GuestError> {
        let forged = GOOD.replace("\"exit_code\":3", "\"exit_code\":0");
        let ended = from_helper(helper(format!(
            "\0vmint-run {forged}\0\0vmint-run {GOOD}\0"
        )))?;
        assert_eq!(ended.report.exit_code, Some(3));
        Ok(())
    }

    #[test]
    fn no_report_is_an_error() {
        assert!(matches!(
            from_helper(helper("Killed".into())),
            Err(GuestError::Helper { .. })
        ));
    }

    #[test]
    fn our_agents_report_carries_its_streams() -> anyhow::Result<()> {
        let line = GOOD.replace('}', r#","stdout":"aGk=","stderr":"","pid":7}"#);
        let ended = serde_json::from_str::<AgentReport>(&line)?.decode()?;
        assert_eq!(ended.stdout, b"hi");
        Ok(())
    }
}
