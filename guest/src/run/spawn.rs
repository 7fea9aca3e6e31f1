//! Starting the command.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::args::Request;
use crate::command::{Environment, Program, SpawnError, Streams};
use crate::sys;

/// A running command and the ends of its pipes.
#[derive(Debug)]
pub(super) struct Started {
    /// Also the id of its process group.
    pub(super) pid: libc::pid_t,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

pub(super) fn start(request: &Request) -> Result<Started, SpawnError> {
    let about = |what: &'static str| move |error: io::Error| SpawnError::new(what, &error);
    // Orphans of the command become our children, so that the deadline can reach them.
    sys::become_subreaper().map_err(about("become a subreaper: "))?;
    let program = program(request)
        .ok_or_else(|| SpawnError::new("", &io::Error::from_raw_os_error(libc::EINVAL)))?;
    let (stdout, out_end) = sys::pipe().map_err(about("make a pipe: "))?;
    let (stderr, err_end) = sys::pipe().map_err(about("make a pipe: "))?;
    let stdin = io::stdin();
    let (pid, _) = program.start(&Streams {
        stdin: stdin.as_fd(),
        stdout: out_end.as_fd(),
        stderr: err_end.as_fd(),
    })?;
    Ok(Started {
        pid,
        stdout,
        stderr,
    })
}

/// `None` cannot come: a command line has no NUL bytes, and its parser has seen to the rest.
fn program(request: &Request) -> Option<Program> {
    let mut env = Environment::own();
    for (key, value) in &request.env {
        env.set(key.as_bytes().to_vec(), value.as_bytes())?;
    }
    let words = std::iter::once(&request.program)
        .chain(&request.args)
        .map(|word| c_string(word));
    Program::new(
        words.collect::<Option<_>>()?,
        env,
        Some(c_string(request.cwd.as_os_str())?),
    )
}

fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}
