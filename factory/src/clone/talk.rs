//! A clone's guest in conversation: answers, bindings, commands, processes, files.
//!
//! The agent of a guest may end and be started again, and a connection may be given up. What is under way then fails
//! at once, because what became of it cannot be known; what comes next gets a connection that works, if the guest still
//! answers. A guest of a version that cannot be talked to is never dialled.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;

use super::guest::Guest;
use super::handle::{Vm, lock};
use crate::guest::{
    Agent, BindError, Binding, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError,
    FileReader, FileWriter, GuestError, Heard, OfGuest, PartialOutput, Process, ProcessError,
    ProcessOrder, StreamRequest, WriteOptions,
};

/// How long a new connection to the agent may take to be made.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Kept outputs that are read from one guest at once: each is held whole. More wait.
const KEPT_AT_ONCE: usize = 4;
/// What is asked for, in messages.
const COMMAND: &str = "running a command";
const PROCESS: &str = "a process";

/// The connection to a guest.
pub(super) struct Talk {
    agent: Mutex<Channel>,
    /// When the guest was heard from last, on the connection that was made last.
    heard: std::sync::Mutex<Heard>,
    keeping: Semaphore,
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
    /// When the guest was heard from last, by whatever it said; `None` while nothing was heard from it yet.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        lock(&self.talk.heard).last()
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

    /// Asks the agent for something, as long as the machine runs, and for the reason of its silence.
    async fn asked<T, E: From<GuestError> + OfGuest, F: Future<Output = Result<T, E>>>(
        &self,
        what: &'static str,
        ask: impl FnOnce(Agent) -> F,
    ) -> Result<T, E> {
        let asking = ask(self.agent(what).await?);
        let answer = self.live.unless_ended(asking).await;
        match answer.as_ref().err().and_then(E::of_guest).cloned() {
            Some(error) => Err(self.live.or_ended(error).await.into()),
            None => answer,
        }
    }
}

impl Guest for Vm {
    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), GuestError>> {
        let answered = async move {
            if self.is_paused() {
                return Ok(());
            }
            let agent = self.agent("a question").await?;
            self.live.unless_ended(agent.ping(deadline)).await
        };
        answered.boxed()
    }

    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        let bound = async move {
            let identity = self.identity();
            let bind = async |agent: Agent| agent.bind(&identity, binding).await;
            let bound = self.asked("binding a sandbox", bind).await?;
            *lock(&self.identity) = bound;
            Ok(())
        };
        bound.boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        let run = async move |agent: Agent| agent.exec(request).await;
        self.asked(COMMAND, run).boxed()
    }

    fn exec_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>> {
        let run = async move |agent: Agent| agent.exec_stream(&request);
        self.asked(COMMAND, run).boxed()
    }

    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>> {
        let start = async move |agent: Agent| agent.start_process(&order).await;
        self.asked(PROCESS, start).boxed()
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>> {
        let list = async |agent: Agent| agent.processes().await;
        self.asked(PROCESS, list).boxed()
    }

    fn find_process<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        let find = async move |agent: Agent| agent.find_process(process).await;
        self.asked(PROCESS, find).boxed()
    }

    fn kept_output<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<PartialOutput, ProcessError>> {
        let read = async move |agent: Agent| {
            // It is never closed. Each that has it reads for a bounded time.
            let _turn = self.talk.keeping.acquire().await;
            agent.kept_output(process).await
        };
        self.asked(PROCESS, read).boxed()
    }

    fn attach_process<'a>(
        &'a self,
        process: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>> {
        let attach = async move |agent: Agent| agent.attach_process(process, replay).await;
        self.asked(PROCESS, attach).boxed()
    }

    fn signal_process<'a>(
        &'a self,
        process: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        let send = async move |agent: Agent| agent.signal_process(process, signal).await;
        self.asked(PROCESS, send).boxed()
    }

    fn end_process<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<(), ProcessError>> {
        let end = async move |agent: Agent| agent.end_process(process).await;
        self.asked(PROCESS, end).boxed()
    }

    fn read_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>> {
        let read = async move |agent: Agent| agent.read_file(path).await;
        self.asked("reading a file", read).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a str,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>> {
        let write = async move |agent: Agent| agent.write_file(path, options);
        self.asked("writing a file", write).boxed()
    }
}
