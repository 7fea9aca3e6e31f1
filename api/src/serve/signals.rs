//! Signals to the service.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks the service to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Interrupt,
    Terminate,
}

impl Stop {
    /// The exit code of a process that this signal ended.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
}

/// The signals that the service listens to.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// The signal that asks for the configuration to be read again.
pub(super) struct Hangup(Signal);

impl Hangup {
    pub(super) fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// The next one; several that came meanwhile are one.
    ///
    /// # Cancel safety
    /// Safe: as for [`Signals::stop`].
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime listens no more: none comes.
            std::future::pending::<()>().await;
        }
    }
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal that asks for a stop.
    ///
    /// # Cancel safety
    /// Safe: a signal that was not returned is returned the next time.
    pub(super) async fn stop(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}
