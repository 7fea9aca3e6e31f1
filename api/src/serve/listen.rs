//! The listeners: TCP on loopback, and a Unix socket.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::chown;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::{Duration, timeout};

use super::diag::SockDiag;
use super::door::diag_for;
use crate::config::Server;

/// How long a service that holds a socket may take to accept a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The file of a Unix socket; it goes with this value.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// Something cannot be bound; nothing is left of it.
    pub async fn bind(server: &Server) -> Result<Self, ListenError> {
        let (unix, socket) = bind_unix(server).await?;
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
            .chain([format!("unix:{}", self.socket.0.display())])
            .collect()
    }
}

async fn bind_unix(server: &Server) -> Result<(UnixListener, SocketFile), ListenError> {
    let path = &server.socket;
    let failed = |action| {
        move |source| ListenError::Unix {
            action,
            path: path.clone(),
            source,
        }
    };
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    let file = SocketFile(path.clone());
    if let Some(group) = server.socket_group {
        chown(path, None, Some(group))
            .map_err(|errno| failed("give its group to")(io::Error::from(errno)))?;
    }
    fs::set_permissions(path, Permissions::from_mode(server.socket_mode))
        .map_err(failed("set the rights of"))?;
    Ok((listener, file))
}

/// Removes a socket on which nobody answers; anything else stays and is an error.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |action| {
        move |source| ListenError::Unix {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at")(source)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NoSocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old"))
        }
        Ok(Err(source)) => Err(failed("look at")(source)),
        Ok(Ok(_)) | Err(_) => Err(ListenError::Taken {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(socket: PathBuf) -> Server {
        Server {
            listen: None,
            socket,
            socket_mode: 0o660,
            socket_group: None,
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_replaced_and_one_that_is_served_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        assert!(path.exists(), "the file outlives its listener");

        let first = Listeners::bind(&server(path.clone()))
            .await
            .expect("the stale socket is replaced");
        let mode = fs::metadata(&path)
            .expect("the socket")
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o660);
        let second = Listeners::bind(&server(path.clone()))
            .await
            .err()
            .expect("somebody answers");
        assert!(matches!(second, ListenError::Taken { .. }), "{second}");
        assert!(
            path.exists(),
            "the refused service took the other's socket away"
        );

        drop(first);
        assert!(!path.exists(), "the socket stays behind");
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api.sock");
        fs::write(&path, "precious").expect("write");
        let error = Listeners::bind(&server(path.clone()))
            .await
            .err()
            .expect("no socket");
        assert!(matches!(error, ListenError::NoSocket { .. }), "{error}");
        assert!(path.exists());
    }
}
