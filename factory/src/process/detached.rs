//! A process that outlives us.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::environment;
use crate::sys::{self, ChildSettings};

/// A child that goes on when this value is dropped, and when we end.
#[derive(Debug)]
pub(crate) struct Detached(tokio::process::Child);

impl Detached {
    /// Starts a process in a session of its own. What it says goes to `log`: a pipe of ours would end with us, and one
    /// that we were given would seem open for as long as it lives.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(crate) fn spawn(program: &Path, args: &[OsString], log: File) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/");
        let settings = ChildSettings {
            inherited: Vec::new(),
            user: None,
            small_pages: false,
            niceness: None,
            // It guards leases: it goes when the service does, not before.
            oom_score_adj: None,
            ruleset: None,
        };
        sys::prepare_child(&mut command, settings);
        command.spawn().map(Self)
    }

    /// Waits until it has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&mut self) {
        if let Err(error) = self.0.wait().await {
            tracing::debug!(%error, "a process cannot be waited for");
        }
    }
}
