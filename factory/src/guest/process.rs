//! Processes of a guest that belong to no connection.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use vmint_guest_protocol::KEPT_MAX_BYTES;
use vmint_guest_protocol::message::OPEN_MAX_BYTES;
use vmint_guest_protocol::names::{codes, commands};

use super::agent::{Agent, COMMAND_DEADLINE, Done, Nothing};
use super::command::{Collected, Command, Facts, Input, carried};
use super::error::Refusal;
use super::link::Opening;
use super::{ExecError, ExecStream, GuestError, OfGuest, PartialOutput, StreamRequest};

/// What is asked for, in a message.
const ATTACH: &str = "the output of a process";
/// What of an id is part of a message.
const ID_SHOWN_CHARS: usize = 32;

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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Process {
    /// Its id, which no other process of the guest ever has: `p` and a number.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The user that it was started as; `None` is root.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has not ended.
    #[serde(rename = "state", deserialize_with = "is_running")]
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
    /// Bytes of its output that are kept; `None` where none are to be.
    pub kept_bytes: Option<u64>,
    /// Whether it wrote more than is kept.
    #[serde(deserialize_with = "or_default")]
    pub truncated: bool,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Reads what is null where no output is kept.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

/// Reads the state of a process.
fn is_running<'de, D: Deserializer<'de>>(state: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        Running,
        Exited,
    }
    State::deserialize(state).map(|state| matches!(state, State::Running))
}

/// Which process.
#[derive(Serialize)]
struct Which<'a> {
    process: &'a str,
}

impl Agent {
    /// Starts a process. It is asked for once: after a failure of the guest, it may run.
    pub(crate) async fn start_process(
        &self,
        order: &ProcessOrder,
    ) -> Result<Process, ProcessError> {
        #[derive(Serialize)]
        struct Arguments<'a> {
            #[serde(flatten)]
            command: Command<'a>,
            keep_output: bool,
        }
        let ProcessOrder {
            command,
            keep_output,
        } = order;
        let arguments = Arguments {
            command: Command::streaming(command, command.timeout)?,
            keep_output: *keep_output,
        };
        let started = self.link.ask(commands::START, &arguments, COMMAND_DEADLINE);
        let argv0 = command.argv.first().map(String::as_str).unwrap_or_default();
        let refused = |refusal: Refusal| refusal.of_command(argv0).into();
        started.await?.map_err(refused)
    }

    /// The processes of the guest, in the order of their start.
    pub(crate) async fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        #[derive(Deserialize)]
        struct Listed {
            processes: Vec<Process>,
        }
        let listed = self.call(commands::PROCESSES, &Nothing {}, COMMAND_DEADLINE);
        let Listed { processes } = listed.await?;
        Ok(processes)
    }

    /// One of them.
    pub(crate) async fn find_process(&self, process: &str) -> Result<Process, ProcessError> {
        let which = Which { process };
        self.about(process, commands::PROCESS, &which).await
    }

    /// Sends a signal to one.
    pub(crate) async fn signal_process(
        &self,
        process: &str,
        signal: i32,
    ) -> Result<(), ProcessError> {
        #[derive(Serialize)]
        struct Arguments<'a> {
            process: &'a str,
            signal: i32,
        }
        let arguments = Arguments { process, signal };
        let Done {} = self.about(process, commands::SIGNAL, &arguments).await?;
        Ok(())
    }

    /// Kills one with its descendants, or forgets one that has ended.
    pub(crate) async fn end_process(&self, process: &str) -> Result<(), ProcessError> {
        let Done {} = self
            .about(process, commands::END, &Which { process })
            .await?;
        Ok(())
    }

    async fn about<A: Serialize, T: serde::de::DeserializeOwned>(
        &self,
        process: &str,
        command: &'static str,
        arguments: &A,
    ) -> Result<T, ProcessError> {
        let answer = self.link.ask(command, arguments, COMMAND_DEADLINE).await;
        let refused = |refusal: Refusal| refusal.of_process(process, command);
        answer?.map_err(refused)
    }

    /// One more reader and writer of a process, as long as that runs.
    pub(crate) async fn attach_process(
        &self,
        process: &str,
        replay: bool,
    ) -> Result<ExecStream, ProcessError> {
        // So that one that is not there is known before the stream begins.
        let found = self.find_process(process).await?;
        let opening = attach(process, replay, true)?;
        let stream = self.link.open(opening)?;
        let facts = Facts {
            argv0: found.argv.into_iter().next().unwrap_or_default(),
            timeout: None,
            is_attached: true,
        };
        Ok(carried(stream, facts, Input::Shared))
    }

    /// The newest output of a process.
    pub(crate) async fn kept_output(&self, process: &str) -> Result<PartialOutput, ProcessError> {
        let opening = attach(process, true, false)?;
        let stream = self.link.open(opening)?;
        let mut collected = Collected::up_to(KEPT_MAX_BYTES);
        let result = tokio::time::timeout(COMMAND_DEADLINE, collected.all(&stream)).await;
        let silent = |_| {
            Err(GuestError::Silent {
                command: ATTACH,
                after: COMMAND_DEADLINE,
            })
        };
        let result = result.unwrap_or_else(silent)?;
        let told: Result<Process, _> = Refusal::or_result(ATTACH, &result)?;
        let told = told.map_err(|refusal| refusal.of_process(process, ATTACH))?;
        let mut kept = collected.kept;
        kept.truncated |= told.truncated;
        Ok(kept)
    }
}

fn attach(process: &str, replay: bool, follow: bool) -> Result<Opening, ProcessError> {
    #[derive(Serialize)]
    struct Open<'a> {
        attach: Attach<'a>,
    }
    #[derive(Serialize)]
    struct Attach<'a> {
        process: &'a str,
        replay: bool,
        follow: bool,
    }
    let attach = Attach {
        process,
        replay,
        follow,
    };
    let object = serde_json::to_vec(&Open { attach }).unwrap_or_default();
    if object.is_empty() || object.len() > OPEN_MAX_BYTES {
        return Err(no_process(process));
    }
    Ok(Opening {
        object,
        ..Opening::default()
    })
}

/// It is part of paths and headers.
fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    const DIGITS_MAX: usize = 20;
    let id = String::deserialize(from)?;
    let digits = id.strip_prefix('p').unwrap_or_default();
    let is_id =
        (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
    match is_id {
        true => Ok(id),
        false => Err(D::Error::custom("a process's id is p and a number")),
    }
}

/// An id that is no process's. What is shown of it is what an id may be.
fn no_process(process: &str) -> ProcessError {
    ProcessError::NoProcess {
        process: process.chars().take(ID_SHOWN_CHARS).collect(),
    }
}

impl Refusal {
    fn of_process(self, process: &str, command: &'static str) -> ProcessError {
        match self.code.as_str() {
            codes::NO_PROCESS => no_process(process),
            codes::ENDED => ProcessError::HasEnded {
                process: process.to_owned(),
            },
            codes::ARGUMENT => ExecError::Invalid {
                reason: self.message,
            }
            .into(),
            _ => ExecError::Guest(self.of(command)).into(),
        }
    }
}

impl From<GuestError> for ProcessError {
    fn from(error: GuestError) -> Self {
        Self::Exec(error.into())
    }
}

impl OfGuest for ProcessError {
    fn of_guest(&self) -> Option<&GuestError> {
        match self {
            Self::Exec(error) => error.of_guest(),
            Self::NoProcess { .. } | Self::HasEnded { .. } => None,
        }
    }
}
