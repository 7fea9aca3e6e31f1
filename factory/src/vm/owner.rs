//! The task that owns a machine's process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::console::Console;
use super::dir::VmDir;
use super::lost::RecordKeeper;
use super::upkeep::Upkeep;
use crate::aside::aside;
use crate::driver::Monitor;
use crate::process::{ExitWatch, OwnedProcess, ProcessState};

/// How long a machine may take to end once its monitor was told.
const QUIT_GRACE: Duration = Duration::from_secs(3);
/// The same for a machine with disks, which writes what it holds of them before it ends: a slow disk must not cost data.
const FLUSH_GRACE: Duration = Duration::from_secs(60);
/// How long it may take after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmEnd {
    /// Whether it was told to.
    pub asked: bool,
    /// How its process ended, and its last words.
    pub how: String,
    /// The last lines on its console, when it was not told to end: its files are gone with it.
    pub console: String,
}

impl fmt::Display for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)
    }
}

/// What the owner is asked for.
#[derive(Debug)]
pub(super) enum OwnerRequest {
    /// The machine is to end.
    End,
    /// The machine is to go on without an owner, for a service that comes later.
    Leave,
}

/// Owns the process, its directory and its console.
pub(super) struct Owner {
    pub(super) process: OwnedProcess,
    pub(super) watch: Arc<ExitWatch>,
    pub(super) monitor: Arc<dyn Monitor>,
    // It ends before the directory goes.
    pub(super) upkeep: Upkeep,
    /// Why the machine is to end though nobody asked for it.
    pub(super) lost: mpsc::Receiver<String>,
    pub(super) dir: VmDir,
    pub(super) console: Console,
    pub(super) record: RecordKeeper,
    pub(super) requests: mpsc::Receiver<OwnerRequest>,
    pub(super) has_disks: Arc<AtomicBool>,
    pub(super) ended: watch::Sender<Option<VmEnd>>,
}

impl Owner {
    /// Runs until the process is gone, and its directory after it; or until it is to go on without us.
    pub(super) async fn run(mut self) {
        let end = self.until_ended().await;
        // Whoever still has a handle may write its record once more, and makes no directory for it.
        self.record.close();
        let Self {
            process,
            upkeep,
            dir,
            ended,
            ..
        } = self;
        let Some(end) = end else {
            drop(upkeep);
            process.leave();
            dir.leave();
            ended.send_replace(Some(VmEnd {
                asked: true,
                how: "it was left running, for the next service".to_owned(),
                console: String::new(),
            }));
            return;
        };
        drop(process);
        // The directory goes before the end is told: who sees the end finds nothing left.
        aside(move || {
            drop(upkeep);
            drop(dir);
        })
        .await;
        ended.send_replace(Some(end));
    }

    /// How it ended; `None` when it is to go on without us.
    async fn until_ended(&mut self) -> Option<VmEnd> {
        tokio::select! {
            exit = self.process.wait() => {
                let stderr = self.process.stderr_text();
                let how = format!("the hypervisor {exit}{}", crate::driver::said(&stderr));
                let console = self.console.clone();
                let console = aside(move || console.last_lines()).await;
                Some(VmEnd { asked: false, how, console })
            }
            // None: the last handle is gone, and with it everybody who could want the machine.
            request = self.requests.recv() => match request {
                Some(OwnerRequest::Leave) => self.leave().await,
                Some(OwnerRequest::End) | None => Some(self.end().await),
            },
            Some(how) = self.lost.recv() => {
                Some(VmEnd { asked: false, how, ..self.end().await })
            }
        }
    }

    /// Lets it go on, for a service that comes later. One that no service would find is ended: nobody would end its lease.
    async fn leave(&mut self) -> Option<VmEnd> {
        let record = self.record.clone();
        let error = aside(move || record.is_kept()).await.err()?;
        tracing::warn!(%error, "a machine is not left running: its record is lost, and no service would know of it");
        Some(self.end().await)
    }

    /// quit, TERM, KILL: each only when the one before did not help. A stopped process is killed at once.
    async fn end(&mut self) -> VmEnd {
        let monitor = Arc::clone(&self.monitor);
        let polite = async {
            // A monitor that does not answer is no obstacle: the signals come next.
            drop(monitor.quit().await);
            self.process.wait().await
        };
        let grace = if self.has_disks.load(Ordering::Relaxed) {
            FLUSH_GRACE
        } else {
            QUIT_GRACE
        };
        let exit = if self.watch.state() == ProcessState::Stopped {
            // It hears nothing, and nothing would come of waiting.
            drop(polite);
            self.process.kill().await
        } else {
            match tokio::time::timeout(grace, polite).await {
                Ok(exit) => exit,
                Err(_) => self.process.end(TERM_GRACE).await,
            }
        };
        VmEnd {
            asked: true,
            how: format!("it was ended; the hypervisor {exit}"),
            console: String::new(),
        }
    }
}
