//! Terminals: one end for us, the other for a command.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

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
    unlockpt(&ours)?;
    // No path is looked up: whatever the guest has made of its /dev/pts, it is this terminal.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    resize_terminal(&ours, size)?;
    Ok((ours, theirs))
}

/// The programs on the terminal are told by SIGWINCH.
pub(crate) fn resize_terminal(terminal: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// What to write so that a program that reads lines comes to the end of its input, and whether it reads lines now.
pub(crate) fn end_of_file_character(terminal: &impl AsFd) -> (u8, bool) {
    match tcgetattr(terminal) {
        Ok(settings) => (
            settings.special_codes[SpecialCodeIndex::VEOF],
            settings.local_modes.contains(LocalModes::ICANON),
        ),
        Err(_) => (END_OF_FILE, false),
    }
}
