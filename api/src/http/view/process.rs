//! Processes of a sandbox, which belong to no connection.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{EndedBy, PartialOutput};

use super::output::{Cut, text_or_base64};
use super::time::shown;

/// The user of a process that names none.
const ROOT: &str = "root";

/// One process of a sandbox. Its times are those of the guest's clock.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// Its id, which no other process of the sandbox ever has.
    #[schema(example = "p1")]
    pub id: String,
    /// The program and its arguments.
    #[schema(example = json!(["python3", "-m", "http.server"]))]
    pub argv: Vec<String>,
    /// `running` or `exited`.
    #[schema(example = "running", pattern = "^(running|exited)$")]
    pub state: String,
    /// Its number in the guest, for people; null once it has ended.
    #[schema(required = true, example = 217)]
    pub pid: Option<i32>,
    /// The guest's user that it was started as.
    #[schema(example = "root")]
    pub user: String,
    /// Whether it has a terminal: what it writes is then all standard output.
    pub tty: bool,
    /// When it was started, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended, RFC 3339; null while it runs.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Its exit code; null while it runs, and after a signal.
    #[schema(required = true)]
    pub exit_code: Option<i32>,
    /// The signal that ended it; null while it runs, and when it exited.
    #[schema(required = true)]
    pub signal: Option<i32>,
    /// Why it ended: `exit`, `signal`, `timeout` (its own), `killed` (by a `DELETE`) or `agent_lost` (the guest's agent was
    /// killed, and every process with it); null while it runs.
    #[schema(required = true, pattern = "^(exit|signal|timeout|killed|agent_lost)$")]
    pub ended_by: Option<String>,
    /// How many clients are attached to it.
    pub attached: u32,
    /// In the answer for one process, where its output is kept: the newest 1 MiB, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stdout: Option<String>,
    /// The same, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stdout_b64: Option<String>,
    /// The same of its error stream, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stderr: Option<String>,
    /// The same, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stderr_b64: Option<String>,
    /// With those: whether it wrote more than is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub truncated: Option<bool>,
}

/// The processes of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProcessList {
    /// In the order of their start: those that run, and the newest 64 that have ended.
    pub processes: Vec<Process>,
}

impl Process {
    /// With what is kept of its output.
    pub(in crate::http) fn with_output(self, kept: PartialOutput) -> Self {
        // One that ended by itself has written its last byte; any other may be in the middle of a character.
        let is_whole = self.ended_by.as_deref() == Some(EndedBy::Exit.as_str());
        let cut = Cut {
            start: kept.truncated,
            end: !is_whole,
        };
        let (stdout, stdout_b64) = text_or_base64(kept.stdout, cut);
        let (stderr, stderr_b64) = text_or_base64(kept.stderr, cut);
        Self {
            stdout,
            stdout_b64,
            stderr,
            stderr_b64,
            truncated: Some(kept.truncated),
            ..self
        }
    }
}

impl From<vmint_cache::Process> for Process {
    fn from(process: vmint_cache::Process) -> Self {
        let state = if process.is_running {
            "running"
        } else {
            "exited"
        };
        Self {
            id: process.id,
            argv: process.argv,
            state: state.to_owned(),
            pid: process.pid.filter(|_| process.is_running),
            user: process.user.unwrap_or_else(|| ROOT.to_owned()),
            tty: process.tty,
            started_at: at(process.started_at_ms),
            ended_at: process.ended_at_ms.map(at),
            exit_code: process.exit_code,
            signal: process.signal,
            ended_by: process.ended_by.map(|by| by.as_str().to_owned()),
            attached: process.attached,
            stdout: None,
            stdout_b64: None,
            stderr: None,
            stderr_b64: None,
            truncated: None,
        }
    }
}

/// A time of the guest's clock. A guest may give any number: one that no calendar has becomes the nearest that it has.
fn at(ms: i64) -> Timestamp {
    let nearest = if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    shown(Timestamp::from_millisecond(ms).unwrap_or(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(ended_by: Option<EndedBy>) -> Process {
        Process::from(vmint_cache::Process {
            id: "p1".to_owned(),
            argv: vec!["x".to_owned()],
            user: None,
            tty: false,
            is_running: ended_by.is_none(),
            pid: None,
            started_at_ms: 1_700_000_000_123,
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            ended_by,
            attached: 0,
            kept_bytes: Some(0),
            truncated: false,
        })
    }

    #[test]
    fn times_are_the_guests_whatever_it_gives() {
        assert_eq!(
            process(None).started_at.to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(at(i64::MAX).to_string(), Timestamp::MAX.to_string());
        assert_eq!(at(i64::MIN), Timestamp::MIN);
    }

    #[test]
    fn kept_output_is_cut_at_characters_on_both_sides() {
        // The second half of a character, and the first of another.
        let (start, end) = (&"ä".as_bytes()[1..], &"ö".as_bytes()[..1]);
        let bytes = [start, b"text", end].concat();
        let kept = |truncated| PartialOutput {
            stdout: bytes.clone(),
            stderr: Vec::new(),
            truncated,
        };
        for ended_by in [None, Some(EndedBy::Killed), Some(EndedBy::Timeout)] {
            let shown = process(ended_by).with_output(kept(true));
            assert_eq!(shown.stdout.as_deref(), Some("text"), "{ended_by:?}");
            assert_eq!(
                (shown.stderr.as_deref(), shown.truncated),
                (Some(""), Some(true))
            );
        }
        // What it has written whole is shown whole.
        let shown = process(Some(EndedBy::Exit)).with_output(kept(false));
        assert!(shown.stdout.is_none() && shown.stdout_b64.is_some());
    }
}
