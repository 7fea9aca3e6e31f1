//! Processes of a guest that belong to no connection.

use serde::{Deserialize, Serialize};

use super::{ExecError, StreamRequest};
use crate::Argv;

/// How a guest keeps processes apart from each other and from its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessControl {
    /// Each has a control group of its own: it can be limited, and be killed as a whole.
    Cgroup,
    /// Its kernel has no control groups of version 2: descendants are looked for and killed.
    Descendants,
}

impl ProcessControl {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Descendants => "descendants",
        }
    }
}

/// A process to start. It runs until it ends, whoever asked for it.
#[derive(Clone, Debug)]
pub struct ProcessOrder {
    /// The command. Without a timeout it may run for ever.
    pub command: StreamRequest,
    /// Whether the newest part of its output is kept in the guest.
    pub keep_output: bool,
}

/// A process as its guest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, which no other process of the guest ever has.
    pub id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The user that it was started as; `None` is root.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has not ended.
    pub is_running: bool,
    /// Its number in the guest; `None` once it has ended.
    pub pid: Option<i32>,
    /// By the guest's clock, milliseconds since 1970.
    pub started_at_ms: i64,
    /// The same of its end.
    pub ended_at_ms: Option<i64>,
    /// Its exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it ended.
    pub ended_by: Option<EndedBy>,
    /// Streams that are attached to it.
    pub attached: u32,
    /// Bytes of its output that are kept.
    pub kept_bytes: u64,
    /// Whether it wrote more than is kept.
    pub truncated: bool,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// It returned from `main` or called `exit`.
    Exit,
    /// A signal of the guest's.
    Signal,
    /// Its timeout.
    Timeout,
    /// It was ended on request.
    Killed,
    /// The guest's agent was lost, and it was killed with it.
    AgentLost,
}

impl EndedBy {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Killed => "killed",
            Self::AgentLost => "agent_lost",
        }
    }
}

/// The newest output of a process, as its guest kept it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptOutput {
    /// Of standard output; of the terminal, where it has one.
    pub stdout: Vec<u8>,
    /// Of standard error.
    pub stderr: Vec<u8>,
    /// Whether it wrote more than that.
    pub truncated: bool,
}

/// Output is the user's: no log has it.
impl std::fmt::Debug for KeptOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        write!(f, "{stdout} + {stderr} bytes")
    }
}

/// Why a request about a process failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProcessError {
    /// No process has this id.
    #[error("there is no process {process:?}")]
    NoProcess {
        /// The id.
        process: String,
    },
    /// It has ended.
    #[error("the process {process:?} has ended")]
    HasEnded {
        /// Its id.
        process: String,
    },
    /// It could not be started, or the guest failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}
