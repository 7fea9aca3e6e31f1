//! A clone's guest in conversation: commands, bindings, streams.
//!
//! The agent of a guest may end and be started again, and a channel may be given up. Whoever is in the middle of
//! something then is told at once, because what became of it cannot be known; whoever comes next gets a channel that
//! works, if the guest still answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;

use super::handle::{Vm, lock};
use crate::guest::{
    Agent, AgentKind, BindError, Binding, ExecError, ExecOutcome, ExecRequest, ExecStream,
    FileError, FileReader, FileWriter, GuestError, STOCK_AGENT, StreamLink, StreamRequest,
    WriteOptions,
};
use crate::wire::Heard;

/// How long a new channel to the agent may take to be made.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Commands that run in one guest at once; the agent takes 64, and more wait here for their turn.
const COMMANDS_AT_ONCE: usize = 60;

/// The channels to a guest.
pub(super) struct Talk {
    agent: Mutex<Channel>,
    /// Dialled at the first use: a clone that waits has no stream, and its guest has not run the code for one.
    streams: Mutex<Option<StreamLink>>,
    /// When the guest was heard from last, on the connection to its agent that was made last.
    heard: std::sync::Mutex<Heard>,
    turns: Arc<Semaphore>,
}

struct Channel {
    agent: Agent,
    /// When the agent could not be reached again.
    failed_at: Option<Instant>,
}

impl Talk {
    pub(super) fn new(agent: Agent) -> Self {
        Self {
            heard: std::sync::Mutex::new(agent.heard().clone()),
            agent: Mutex::new(Channel {
                agent,
                failed_at: None,
            }),
            streams: Mutex::new(None),
            turns: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
        }
    }
}

impl Vm {
    /// Runs a command in the guest. Several may run at once; beyond some sixty they take turns, and the time of each
    /// begins with its turn.
    ///
    /// # Errors
    /// See [`ExecError`].
    ///
    /// # Cancel safety
    /// A dropped call kills the command with its descendants. Where the guest has stock `qemu-ga`, it runs until its
    /// own deadline.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecOutcome, ExecError> {
        // Closed it never is: the permit is an error only in a type.
        let turns = Arc::clone(&self.talk.turns);
        let turn = self
            .live
            .unless_ended(async { Ok::<_, GuestError>(turns.acquire_owned().await) })
            .await?;
        let agent = self.agent().await;
        let running = agent.exec_in_turn(&request, turn.ok());
        match self.live.unless_ended(running).await {
            Err(ExecError::Guest(error)) => Err(self.live.or_ended(error).await.into()),
            outcome => outcome,
        }
    }

    /// When the guest was heard from last, by whatever it said; `None` while nothing was heard from it yet.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        lock(&self.talk.heard).last()
    }

    /// The agent. When the channel to it is dead a new one is made; when that does not work, what is answered is
    /// dead, and says so to whoever uses it.
    pub(super) async fn agent(&self) -> Agent {
        let begun = Instant::now();
        let mut channel = self.talk.agent.lock().await;
        // Those who waited while somebody else tried in vain do not each try again.
        let was_tried = channel.failed_at.is_some_and(|failed| failed >= begun);
        if channel.agent.is_lost() && !was_tried {
            self.reconnect(&mut channel).await;
        }
        channel.agent.clone()
    }

    async fn reconnect(&self, channel: &mut MutexGuard<'_, Channel>) {
        let deadline = Instant::now() + RECONNECT_DEADLINE;
        match self.live.agent(channel.agent.kind(), deadline).await {
            Ok(fresh) => {
                *lock(&self.talk.heard) = fresh.heard().clone();
                channel.agent = fresh;
            }
            Err(error) => {
                channel.failed_at = Some(Instant::now());
                tracing::warn!(vm = %self.id(), %error, "the guest agent cannot be reached again");
            }
        }
    }

    /// Binds it to whoever has it now: a host name, an environment, small files. One round trip.
    ///
    /// # Errors
    /// See [`BindError`]. Part of it may have been done.
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done.
    pub async fn bind(&self, binding: &Binding) -> Result<(), BindError> {
        let agent = self.agent().await;
        let identity = self.identity();
        match self.live.unless_ended(agent.bind(&identity, binding)).await {
            Ok(bound) => {
                *lock(&self.identity) = bound;
                Ok(())
            }
            Err(BindError::Guest(error)) => Err(self.live.or_ended(error).await.into()),
            Err(error) => Err(error),
        }
    }

    /// Runs a command with its streams open.
    ///
    /// # Errors
    /// See [`ExecError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// A dropped call, or stream, kills the command.
    pub async fn exec_stream(&self, request: StreamRequest) -> Result<ExecStream, ExecError> {
        self.streams("a streaming command").await?.exec(&request)
    }

    /// Opens a file of the guest to read it.
    ///
    /// # Errors
    /// See [`FileError`].
    ///
    /// # Cancel safety
    /// Safe; a dropped reader closes the file.
    pub async fn read_file(&self, path: &str) -> Result<FileReader, FileError> {
        let streams = self.streams("reading a file").await?;
        self.live.unless_ended(streams.read_file(path)).await
    }

    /// Begins to write a file of the guest. Missing folders are made.
    ///
    /// # Errors
    /// See [`FileError`]; what the guest's kernel refuses is what the writer's `stored` says.
    ///
    /// # Cancel safety
    /// A dropped call or writer leaves no file.
    pub async fn write_file(
        &self,
        path: &str,
        options: WriteOptions,
    ) -> Result<FileWriter, FileError> {
        let streams = self.streams("writing a file").await?;
        streams.write_file(path, options)
    }

    /// The connection to the stream port, made now if there is none that works.
    async fn streams(&self, what: &'static str) -> Result<StreamLink, NoStreams> {
        let mut streams = self.talk.streams.lock().await;
        if let Some(link) = streams.as_ref().filter(|link| !link.is_lost()) {
            return Ok(link.clone());
        }
        let agent = self.agent().await;
        if agent.kind() == AgentKind::QemuGa {
            return Err(NoStreams::Unsupported { what });
        }
        // The old one is closed before there is another: the port takes one connection at a time.
        *streams = None;
        let socket = self.live.dir().join("stream.sock");
        let dialling = StreamLink::dial(&socket, &agent);
        match self.live.unless_ended(dialling).await {
            Ok(link) => Ok(streams.insert(link).clone()),
            Err(error) => Err(NoStreams::Guest(self.live.or_ended(error).await)),
        }
    }
}

/// Why there is no connection to the stream port.
enum NoStreams {
    Unsupported { what: &'static str },
    Guest(GuestError),
}

impl From<NoStreams> for ExecError {
    fn from(none: NoStreams) -> Self {
        match none {
            NoStreams::Unsupported { what } => {
                let reason = STOCK_AGENT.to_owned();
                Self::Unsupported { what, reason }
            }
            NoStreams::Guest(error) => Self::Guest(error),
        }
    }
}

impl From<NoStreams> for FileError {
    fn from(none: NoStreams) -> Self {
        match none {
            NoStreams::Unsupported { what } => {
                let reason = STOCK_AGENT.to_owned();
                Self::Unsupported { what, reason }
            }
            NoStreams::Guest(error) => Self::Guest(error),
        }
    }
}
