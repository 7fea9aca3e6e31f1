//! A terminal of this host.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long the screen may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal, and a program that was started in it.
pub(crate) struct Terminal {
    keys: File,
    end: OwnedFd,
}

impl Terminal {
    pub(crate) fn new(rows: u16, columns: u16) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let end = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let terminal = Self {
            keys: File::from(keys),
            end: end.into(),
        };
        terminal.resize(rows, columns);
        terminal
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keys, size).unwrap();
    }

    fn end(&self) -> Stdio {
        self.end.try_clone().unwrap().into()
    }

    pub(crate) fn start(&self, mut command: Command) -> Child {
        command
            .stdin(self.end())
            .stdout(self.end())
            .stderr(self.end());
        command.spawn().unwrap()
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.end).unwrap()
    }

    pub(crate) fn is_raw(&self) -> bool {
        !self.modes().local_modes.contains(LocalModes::ICANON)
    }

    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Reads what the screen shows until it has this.
    pub(crate) async fn shows(&self, what: &str) -> String {
        let mut screen = self.keys.try_clone().unwrap();
        let wanted = what.to_owned();
        let reading = spawn_blocking(move || {
            let (mut all, mut piece) = (String::new(), [0; 4096]);
            while !all.contains(&wanted) {
                let got = screen.read(&mut piece).unwrap();
                all += &String::from_utf8_lossy(&piece[..got]);
            }
            all
        });
        let shown = timeout(PATIENCE, reading).await;
        shown.unwrap_or_else(|_| panic!("no {what:?}")).unwrap()
    }
}
