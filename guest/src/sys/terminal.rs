//! Terminals: one end for us, the other for a command.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::check;

const MASTERS: &str = "/dev/ptmx";
/// Where the terminal's settings cannot be read: Ctrl-D.
const END_OF_FILE: u8 = 4;

/// How many characters a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// A new terminal: our end, which does not block, and the command's.
pub(crate) fn open_terminal(size: WindowSize) -> io::Result<(File, OwnedFd)> {
    let ours = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(MASTERS)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads an int.
    check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes the flags of open(2) as a plain argument. No path is looked up: whatever the guest has
    // made of its /dev/pts, it is this terminal.
    let theirs = check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    resize_terminal(&ours, size)?;
    Ok((ours, theirs))
}

/// The programs on the terminal are told by SIGWINCH.
pub(crate) fn resize_terminal(terminal: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request reads a struct winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// What to write so that a program that reads lines comes to the end of its input, and whether it reads lines now.
pub(crate) fn end_of_file_character(terminal: &impl AsFd) -> (u8, bool) {
    // SAFETY: termios is plain numbers; zeros are valid.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: `settings` is a valid termios for the call to fill.
    match check(unsafe { libc::tcgetattr(terminal.as_fd().as_raw_fd(), &mut settings) }) {
        Ok(_) => (
            settings.c_cc[libc::VEOF],
            settings.c_lflag & libc::ICANON != 0,
        ),
        Err(_) => (END_OF_FILE, false),
    }
}

/// Gives the terminal's file to a user; its group stays.
pub(crate) fn give_to(terminal: &impl AsFd, uid: libc::uid_t) -> io::Result<()> {
    std::os::unix::fs::fchown(terminal, Some(uid), None)
}
