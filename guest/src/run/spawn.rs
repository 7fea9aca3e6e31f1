//! Starting the command.
//!
//! Directory, environment and session are set in the helper itself, which lives for this command only. So the child
//! needs nothing that std would have to `fork` for, and is made by `posix_spawn`: no copy of the page tables, which
//! is what makes a start expensive under emulation.

use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use super::args::Request;
use super::trailer::SpawnError;
use crate::sys;

/// Used where the caller's environment has none; a guest's `qemu-ga` may run without HOME.
const DEFAULT_ENV: [(&str, &str); 2] = [("PATH", sys::GUEST_PATH), ("HOME", "/root")];

/// A running command and the ends of its pipes.
#[derive(Debug)]
pub(super) struct Started {
    /// Also the id of its process group.
    pub(super) pid: libc::pid_t,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

pub(super) fn start(request: &Request) -> Result<Started, SpawnError> {
    merge_environment(request);
    if let Err(error) = std::env::set_current_dir(&request.cwd) {
        return Err(SpawnError::new(&format!("cwd {}: ", request.cwd.display()), &error));
    }
    // Orphans of the command become our children, so that the deadline can reach them.
    if let Err(error) = sys::become_subreaper() {
        return Err(SpawnError::new("become a subreaper: ", &error));
    }
    // Fails only for a process-group leader, that is when somebody starts the helper from a shell: harmless there.
    let _ = sys::new_session();
    let mut command = Command::new(&request.program);
    command.args(&request.args).process_group(0).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| SpawnError::new("", &error))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both streams were asked for as pipes");
    };
    let pid = libc::pid_t::try_from(child.id()).unwrap_or_else(|_| unreachable!("a process id is a pid_t"));
    Ok(Started { pid, stdout, stderr })
}

fn merge_environment(request: &Request) {
    for (key, value) in DEFAULT_ENV {
        if std::env::var_os(key).is_none() {
            sys::set_env(key.as_ref(), value.as_ref());
        }
    }
    for (key, value) in &request.env {
        sys::set_env(key, value);
    }
}
