//! The listeners: TCP on loopback, and a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener};

use super::diag::SockDiag;
use super::door::diag_for;
use super::socket::{OwnsPlaces, SocketFile};
use crate::config::Server;

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// TCP.
    #[error("cannot listen on {address} (server.listen): {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("cannot {action} the socket {} (server.socket): {source}", path.display())]
    Unix {
        /// What failed.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("another service answers on {} (server.socket)", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{} (server.socket) is there, and is no socket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
}

/// Bound, not yet served.
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    /// Who connects over TCP; `None` where the kernel does not say.
    pub(super) diag: Option<SockDiag>,
    pub(super) unix: UnixListener,
    pub(super) socket: SocketFile,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// Something cannot be bound; nothing is left of it.
    pub async fn bind(server: &Server) -> Result<Self, ListenError> {
        let (unix, socket) = SocketFile::bind(server).await?;
        let tcp = match server.listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError::Tcp { address, source })?)
            }
            None => None,
        };
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let diag = match address {
            Some(address) => diag_for(address).await,
            None => None,
        };
        Ok(Self {
            tcp,
            diag,
            unix,
            socket,
        })
    }

    /// The same, whose socket is bound again only while the service's directories are its own.
    pub(super) fn asking(self, owns_places: OwnsPlaces) -> Self {
        Self {
            socket: self.socket.asking(owns_places),
            ..self
        }
    }

    /// The same on a kernel that does not say who connects over TCP.
    #[doc(hidden)]
    #[must_use]
    pub fn without_diag(self) -> Self {
        Self { diag: None, ..self }
    }

    /// Where clients reach the service, as URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let tcp = self
            .tcp
            .as_ref()
            .and_then(|tcp| tcp.local_addr().ok())
            .map(|address| format!("http://{address}"));
        tcp.into_iter()
            .chain([format!("unix:{}", self.socket.path().display())])
            .collect()
    }
}
