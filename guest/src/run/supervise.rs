//! The loop around a running command: its output, its end, the deadline, our own end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::args::Request;
use super::descendants::{kill_all, reap};
use super::spawn::Started;
use super::trailer::Trailer;
use crate::command::{Buffer, Relay};
use crate::failure::{Doing as _, Failure};
use crate::sys::{self, Ended, SignalFd};

/// How the supervision ended.
pub(super) enum End {
    /// The command ended, by itself or at the deadline.
    Ran(Trailer),
    /// The helper was told to end, and ended the command first.
    Terminated,
}

/// What made the loop stop.
enum Stop {
    MainEnded(Ended),
    Deadline,
    Terminated,
}

/// What the helper reacts to while a command runs.
const SIGNALS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

pub(super) fn supervise(started: Started, request: &Request) -> Result<End, Failure> {
    let pid = started.pid;
    // std's stdout keeps back what follows the last line end; the plain file behind it does not.
    let stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .doing(|| "duplicate stdout".to_owned())?;
    let mut out = Relay::new(
        Some(started.stdout),
        File::from(stdout),
        request.max_output_bytes,
    );
    let mut err = Relay::new(Some(started.stderr), io::stderr(), request.max_output_bytes);
    let mut buffer = Buffer::new();
    let deadline = request
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));

    let stop = match relay_until_stop(pid, deadline, &mut out, &mut err, &mut buffer) {
        Ok(stop) => stop,
        Err(failure) => {
            // Nobody reads any more, or the loop is broken: the command must not outlive its supervision.
            kill_all(pid);
            return Err(failure);
        }
    };
    let (ended, timed_out) = match stop {
        Stop::MainEnded(ended) => (Some(ended), false),
        Stop::Deadline => (kill_all(pid), true),
        Stop::Terminated => {
            kill_all(pid);
            return Ok(End::Terminated);
        }
    };
    out.drain(&mut buffer)
        .doing(|| "pass on stdout".to_owned())?;
    err.drain(&mut buffer)
        .doing(|| "pass on stderr".to_owned())?;
    Ok(End::Ran(Trailer {
        ended,
        timed_out,
        stdout_truncated: out.truncated(),
        stderr_truncated: err.truncated(),
        spawn_error: None,
    }))
}

fn relay_until_stop<O: Write, E: Write>(
    pid: libc::pid_t,
    deadline: Option<Instant>,
    out: &mut Relay<O>,
    err: &mut Relay<E>,
    buffer: &mut Buffer,
) -> Result<Stop, Failure> {
    // The signals are blocked only now, because the command would have inherited that. So it may have ended unnoticed.
    let signals = SignalFd::new(&SIGNALS).doing(|| "watch for signals".to_owned())?;
    if let Some(ended) = reap(pid).main_ended() {
        return Ok(Stop::MainEnded(ended));
    }
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            // An end that comes together with the deadline counts as an end.
            return Ok(reap(pid)
                .main_ended()
                .map_or(Stop::Deadline, Stop::MainEnded));
        }
        let [signalled, out_ready, err_ready] =
            sys::poll_readable([Some(signals.fd()), out.fd(), err.fd()], left)
                .doing(|| "poll".to_owned())?;
        if signalled {
            let told_to_end = signals
                .drain()
                .doing(|| "read signals".to_owned())?
                .into_iter()
                .any(|s| s != libc::SIGCHLD);
            if let Some(ended) = reap(pid).main_ended() {
                return Ok(Stop::MainEnded(ended));
            }
            if told_to_end {
                return Ok(Stop::Terminated);
            }
        }
        if out_ready {
            out.pass(buffer).doing(|| "pass on stdout".to_owned())?;
        }
        if err_ready {
            err.pass(buffer).doing(|| "pass on stderr".to_owned())?;
        }
    }
}
