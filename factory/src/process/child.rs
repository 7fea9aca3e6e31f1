//! A process of ours, from its start until it was waited for.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::domain::{Domain, Tcp};
use super::environment;
use super::hypervisors::Listed;
use super::oom;
use super::priority::{NICENESS, lower_session};
use super::stderr::StderrTail;
use super::stray::ProcessStamp;
use super::watch::ExitWatch;
use crate::aside::aside;
use crate::sys::{self, ChildSettings, Credentials};

/// How long the rest of the error stream is waited for after the process has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What to start.
#[derive(Debug, Default)]
pub(crate) struct LaunchPlan {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// Open in the child under the same numbers; closed here once it was spawned.
    pub(crate) inherited: Vec<OwnedFd>,
    pub(crate) user: Option<Credentials>,
    /// See [`ChildSettings::small_pages`].
    pub(crate) small_pages: bool,
    /// Whether others that want a processor go first: see `priority.rs`.
    pub(crate) gives_way: bool,
    /// What it may open by path; everything that its user may without one, or where the kernel has no Landlock.
    pub(crate) domain: Option<Domain>,
    /// Where its standard output goes: nowhere without one.
    pub(crate) stdout: Option<OwnedFd>,
}

/// A child process. Dropped before it has ended, it is killed and reaped in the background.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    stamp: ProcessStamp,
    watch: Arc<ExitWatch>,
    stderr: StderrTail,
    stderr_reader: Option<JoinHandle<()>>,
    /// Of a process with a domain. It goes after the process was told to end.
    listed: Option<Listed>,
}

impl Child {
    /// Starts a process as [`Child::spawn`] does, on a thread that may block: a fork copies page tables, and an exec
    /// reads a program, while others wait for their answers.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing: the process is killed as soon as it was started.
    pub(crate) async fn spawn_aside(plan: LaunchPlan) -> io::Result<Self> {
        aside(move || Self::spawn(plan)).await
    }

    /// Starts a process in a session of its own.
    ///
    /// # Errors
    /// When it cannot be executed, or its user cannot be taken.
    pub(crate) fn spawn(plan: LaunchPlan) -> io::Result<Self> {
        let ruleset = plan.domain.as_ref().map(Domain::ruleset).transpose()?;
        let ruleset = ruleset.flatten();
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.args)
            .env_clear()
            .envs(environment())
            .stdin(Stdio::null())
            .stdout(plan.stdout.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            .current_dir("/")
            .kill_on_drop(true);
        let settings = ChildSettings {
            inherited: plan.inherited.iter().map(AsRawFd::as_raw_fd).collect(),
            user: plan.user,
            small_pages: plan.small_pages,
            niceness: plan.gives_way.then_some(NICENESS),
            oom_score_adj: Some(oom::SCORE_ADJ),
            ruleset: ruleset.as_ref().map(AsRawFd::as_raw_fd),
        };
        sys::prepare_child(&mut command, settings);
        let mut process = command.spawn()?;
        drop((plan.inherited, ruleset));
        let gone = || io::Error::other("the process has no pid");
        let pid = process.id().ok_or_else(gone)?;
        if plan.gives_way {
            lower_session(pid);
        }
        oom::report_refusal(pid);
        let stamp = ProcessStamp::of(pid)?;
        let domain = plan.domain.as_ref();
        let listed = domain.map(|domain| Listed::enter(stamp, domain.tcp == Tcp::Connect));
        let watch = Arc::new(ExitWatch::of(pid)?);
        let (stderr, reader) = match process.stderr.take() {
            Some(stream) => StderrTail::follow(stream),
            None => return Err(io::Error::other("the process has no error stream")),
        };
        Ok(Self {
            process,
            stamp,
            watch,
            stderr,
            stderr_reader: Some(reader),
            listed,
        })
    }

    pub(crate) fn stamp(&self) -> ProcessStamp {
        self.stamp
    }

    /// Tells at once whether it has ended, without waiting for it.
    pub(crate) fn watch(&self) -> Arc<ExitWatch> {
        Arc::clone(&self.watch)
    }

    pub(crate) fn stderr(&self) -> StderrTail {
        self.stderr.clone()
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe: a later call goes on waiting.
    pub(crate) async fn wait(&mut self) -> ExitKind {
        let status = self.process.wait().await;
        if let Some(reader) = self.stderr_reader.take() {
            // A grandchild could hold the stream open; what it says is not the process's last word.
            drop(tokio::time::timeout(LAST_WORDS, reader).await);
        }
        match status {
            Ok(status) => ExitKind::from(status),
            Err(e) => ExitKind::Unknown(e.kind()),
        }
    }

    /// Asks it to end, and after `grace` kills it; returns when it is gone.
    ///
    /// # Cancel safety
    /// A dropped call leaves a process that was asked to end; dropping the [`Child`] kills it.
    pub(crate) async fn end(&mut self, grace: Duration) -> ExitKind {
        self.signal(Signal::SIGTERM);
        if let Ok(kind) = tokio::time::timeout(grace, self.wait()).await {
            return kind;
        }
        tracing::warn!(
            pid = self.stamp.pid,
            "the process ignored SIGTERM for {} ms; killing it",
            grace.as_millis()
        );
        self.kill().await
    }

    /// Kills it and waits.
    pub(crate) async fn kill(&mut self) -> ExitKind {
        self.signal(Signal::SIGKILL);
        self.wait().await
    }

    /// Lets go of it: it goes on without us, and without anybody who reads what it says.
    pub(crate) fn leave(self) {
        // What would kill and reap it is what must not happen. What is forgotten are a few descriptors, for the
        // moment until the service ends.
        std::mem::forget(self.process);
        if let Some(listed) = self.listed {
            listed.stay();
        }
    }

    /// Signals its group: it leads one of its own.
    fn signal(&self, signal: Signal) {
        // `id` is none once it was waited for: then the number may belong to somebody else.
        let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        if let Err(error) = killpg(Pid::from_raw(pid), signal) {
            tracing::debug!(pid, %signal, %error, "the process could not be signalled");
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitKind {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It cannot be told.
    Unknown(io::ErrorKind),
}

impl From<ExitStatus> for ExitKind {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown(io::ErrorKind::Other),
        }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal(libc_sigbus) if *libc_sigbus == Signal::SIGBUS as i32 => f.write_str(
                "was killed by SIGBUS: the file system that holds its memory file is full; \
                 enlarge the tmpfs at template_path, or use a smaller template",
            ),
            Self::Signal(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown(kind) => write!(f, "ended, but could not be waited for: {kind}"),
        }
    }
}
