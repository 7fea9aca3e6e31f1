//! A clone's guest in conversation: commands, bindings, files.
//!
//! The agent of a guest may end and be started again, and a connection may be given up. What is under way then fails
//! at once, because what became of it cannot be known; what comes next gets a connection that works, if the guest still
//! answers. A guest of a version that cannot be talked to is never dialled.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;

use super::handle::{Vm, lock};
use crate::guest::{
    Agent, BindError, Binding, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError,
    FileReader, FileWriter, GuestError, Heard, OfGuest, StreamRequest, WriteOptions,
};

/// How long a new connection to the agent may take to be made.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Kept outputs that are read from one guest at once: each is held whole. More wait.
const KEPT_AT_ONCE: usize = 4;

/// The connection to a guest.
pub(super) struct Talk {
    agent: Mutex<Channel>,
    /// When the guest was heard from last, on the connection that was made last.
    heard: std::sync::Mutex<Heard>,
    pub(super) keeping: Semaphore,
    pub(super) is_outdated: bool,
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
            keeping: Semaphore::new(KEPT_AT_ONCE),
            is_outdated: false,
        }
    }
}

impl Vm {
    /// Runs a command in the guest. Several may run at once, as many as the guest takes processes.
    ///
    /// # Errors
    /// See [`ExecError`].
    ///
    /// # Cancel safety
    /// A dropped call kills the command with its descendants.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecOutcome, ExecError> {
        let agent = self.agent("running a command").await?;
        self.asked(agent.exec(request)).await
    }

    /// When the guest was heard from last, by whatever it said; `None` while nothing was heard from it yet.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        lock(&self.talk.heard).last()
    }

    /// Whether its guest's agent is of a version that cannot be talked to.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.talk.is_outdated
    }

    /// The agent, which is asked for something. When the connection to it is lost a new one is made; when that does not
    /// work, what is answered is lost, and says so when it is used.
    pub(super) async fn agent(&self, what: &'static str) -> Result<Agent, GuestError> {
        if self.talk.is_outdated {
            return Err(GuestError::Outdated { what });
        }
        let begun = Instant::now();
        let mut channel = self.talk.agent.lock().await;
        // Those who waited while another one tried in vain do not each try again.
        let was_tried = channel.failed_at.is_some_and(|failed| failed >= begun);
        if channel.agent.is_lost() && !was_tried {
            self.reconnect(&mut channel).await;
        }
        Ok(channel.agent.clone())
    }

    async fn reconnect(&self, channel: &mut MutexGuard<'_, Channel>) {
        let deadline = Instant::now() + RECONNECT_DEADLINE;
        match self.live.agent(deadline).await {
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

    /// Waits for the guest, as long as the machine runs, and for the reason of its silence.
    pub(super) async fn asked<T, E: From<GuestError> + OfGuest>(
        &self,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let answer = self.live.unless_ended(asking).await;
        match answer.as_ref().err().and_then(E::of_guest).cloned() {
            Some(error) => Err(self.live.or_ended(error).await.into()),
            None => answer,
        }
    }

    /// Binds it to its user: a host name, an environment, small files. One round trip.
    ///
    /// # Errors
    /// See [`BindError`]. Part of it may have been done.
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done.
    pub async fn bind(&self, binding: &Binding) -> Result<(), BindError> {
        let agent = self.agent("binding a sandbox").await?;
        let identity = self.identity();
        let bound = self.asked(agent.bind(&identity, binding)).await?;
        *lock(&self.identity) = bound;
        Ok(())
    }

    /// Runs a command with its streams open.
    ///
    /// # Errors
    /// See [`ExecError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// A dropped call, or stream, kills the command.
    pub async fn exec_stream(&self, request: StreamRequest) -> Result<ExecStream, ExecError> {
        let agent = self.agent("running a command").await?;
        self.asked(async { agent.exec_stream(&request) }).await
    }

    /// Opens a file of the guest to read it.
    ///
    /// # Errors
    /// See [`FileError`].
    ///
    /// # Cancel safety
    /// Safe; a dropped reader closes the file.
    pub async fn read_file(&self, path: &str) -> Result<FileReader, FileError> {
        let agent = self.agent("reading a file").await?;
        self.asked(agent.read_file(path)).await
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
        let agent = self.agent("writing a file").await?;
        self.asked(async { agent.write_file(path, options) }).await
    }
}
