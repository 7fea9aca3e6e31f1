//! Starting a process: the pipes or the terminal between it and us.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::groups::{Group, Groups};
use super::input::Sink;
use crate::agent::order::Order;
use crate::command::{SpawnError, Streams};
use crate::sys::{self, WindowSize};

/// The ends of a process's streams that are ours.
pub(super) struct Ends {
    pub(super) sink: Sink,
    pub(super) outputs: [Option<File>; 2],
    /// The ends of its outputs' pipes that are its own.
    pub(super) theirs: Option<[OwnedFd; 2]>,
    pub(super) terminal: Option<File>,
}

/// Its id, a descriptor that tells its end, and our ends.
type Started = (libc::pid_t, OwnedFd, Ends);

pub(super) fn start(
    order: Order,
    nowhere: &File,
    group: Option<&Group>,
    groups: &Groups,
) -> Result<Started, SpawnError> {
    match order.window {
        Some(window) => on_terminal(order, window, nowhere, group, groups),
        None => on_pipes(order, nowhere, group, groups),
    }
}

fn on_pipes(
    order: Order,
    nowhere: &File,
    group: Option<&Group>,
    groups: &Groups,
) -> Result<Started, SpawnError> {
    let failed = |error: io::Error| SpawnError::new("make a pipe: ", &error);
    let (stdout, out_end) = readable_pipe().map_err(failed)?;
    let (stderr, err_end) = readable_pipe().map_err(failed)?;
    let (in_end, sink) = match order.stdin {
        false => (None, Sink::Nowhere),
        true => {
            let (theirs, ours) = sys::pipe().map_err(failed)?;
            sys::set_nonblocking(&ours).map_err(failed)?;
            (Some(theirs), Sink::Pipe(ours.into()))
        }
    };
    let streams = Streams {
        stdin: in_end.as_ref().map_or(nowhere.as_fd(), OwnedFd::as_fd),
        stdin_is_ours: in_end.is_some(),
        stdout: out_end.as_fd(),
        stderr: err_end.as_fd(),
    };
    let (pid, end) = order
        .program
        .start(&streams, group.map(Group::fd), || groups.make_room())?;
    let ends = Ends {
        sink,
        outputs: [Some(stdout), Some(stderr)],
        theirs: Some([out_end, err_end]),
        terminal: None,
    };
    Ok((pid, end, ends))
}

/// Our end does not block: another program in the guest may read what we were told of.
pub(super) fn readable_pipe() -> io::Result<(File, OwnedFd)> {
    let (ours, theirs) = sys::pipe()?;
    sys::set_nonblocking(&ours)?;
    Ok((ours.into(), theirs))
}

fn on_terminal(
    order: Order,
    window: WindowSize,
    nowhere: &File,
    group: Option<&Group>,
    groups: &Groups,
) -> Result<Started, SpawnError> {
    let failed = |error: io::Error| SpawnError::new("open a terminal: ", &error);
    let (ours, theirs) = sys::open_terminal(window).map_err(failed)?;
    let sink = match order.stdin {
        true => Sink::Terminal(ours.try_clone().map_err(failed)?),
        false => Sink::Nowhere,
    };
    let output = ours.try_clone().map_err(failed)?;
    let theirs = theirs.as_fd();
    let streams = Streams {
        stdin: if order.stdin { theirs } else { nowhere.as_fd() },
        stdin_is_ours: order.stdin,
        stdout: theirs,
        stderr: theirs,
    };
    let program = order.program.on_a_terminal();
    let (pid, end) = program.start(&streams, group.map(Group::fd), || groups.make_room())?;
    let ends = Ends {
        sink,
        outputs: [Some(output), None],
        theirs: None,
        terminal: Some(ours),
    };
    Ok((pid, end, ends))
}
