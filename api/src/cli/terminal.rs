//! The terminal that a command of a sandbox is used from.

use std::io::{IsTerminal as _, stdin, stdout};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use vmint_cache::WindowSize;

use super::error::CliError;

/// Whether standard input is a terminal.
pub(super) fn is_input() -> bool {
    stdin().is_terminal()
}

/// The size of the terminal; `None` where there is none, or it does not know.
pub(super) fn size() -> Option<WindowSize> {
    let asked = if stdout().is_terminal() {
        tcgetwinsize(stdout())
    } else {
        tcgetwinsize(stdin())
    };
    let size = asked.ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Tells when the terminal has another size.
pub(super) fn size_changes() -> Result<Signal, CliError> {
    listen(SignalKind::window_change())
}

/// Standard input without a line discipline: every key goes to the sandbox. Dropped, the terminal is as it was before.
pub(super) struct Raw {
    before: Termios,
    signals: [Signal; 4],
}

/// Signals that would end us while the terminal is raw.
const ENDING: [SignalKind; 4] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
];

impl Raw {
    /// Takes the terminal. From now on [`Raw::signalled`] must be watched.
    pub(super) fn enter() -> Result<Self, CliError> {
        let [hangup, interrupt, quit, terminate] = ENDING.map(listen);
        let signals = [hangup?, interrupt?, quit?, terminate?];
        let failed = |errno: rustix::io::Errno| CliError::Stream {
            what: "cannot change the terminal",
            source: errno.into(),
        };
        let before = tcgetattr(stdin()).map_err(failed)?;
        let raw = Self { before, signals };
        let mut termios = raw.before.clone();
        termios.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &termios).map_err(failed)?;
        Ok(raw)
    }

    /// Resolves with the number of a signal that ends us.
    pub(super) async fn signalled(&mut self) -> i32 {
        let [hangup, interrupt, quit, terminate] = &mut self.signals;
        let kind = tokio::select! {
            _ = hangup.recv() => ENDING[0],
            _ = interrupt.recv() => ENDING[1],
            _ = quit.recv() => ENDING[2],
            _ = terminate.recv() => ENDING[3],
        };
        kind.as_raw_value()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|source| CliError::Stream {
        what: "cannot wait for signals",
        source,
    })
}

/// The keys that leave a process to itself, as in `docker attach`: Ctrl-P, then Ctrl-Q.
#[derive(Debug, Default)]
pub(super) struct Detach {
    /// Whether the first of them was pressed, and is held back.
    is_begun: bool,
}

impl Detach {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    /// The keys that go to the process, and whether those that leave it were pressed.
    pub(super) fn filter(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            if self.is_begun && *key == Self::SECOND {
                return (passed, true);
            }
            if self.is_begun {
                passed.push(Self::FIRST);
            }
            self.is_begun = *key == Self::FIRST;
            if !self.is_begun {
                passed.push(*key);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_and_every_other_passes() {
        let mut detach = Detach::default();
        assert_eq!(detach.filter(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(detach.filter(b"\x11"), (b"\x11".to_vec(), false));
        // Held back, and passed on as soon as it means something else.
        assert_eq!(detach.filter(b"\x10"), (vec![], false));
        assert_eq!(detach.filter(b"a"), (b"\x10a".to_vec(), false));
        assert_eq!(detach.filter(b"b\x10"), (b"b".to_vec(), false));
        assert_eq!(detach.filter(b"\x10"), (b"\x10".to_vec(), false));
        assert_eq!(detach.filter(b"\x11rest"), (vec![], true));
    }
}
