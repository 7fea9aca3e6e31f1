//! The file of the Unix socket: made, kept, and removed.
//!
//! ```text
//!           bind()              the name is free                bind_again()
//!  (nothing) -----> ours ---------------------------> removed ---------------> ours: another file, another listener
//!                    | |                                          |
//!                    | | another file has the name                | it cannot be bound: tried again every few seconds
//!                    | v                                          v
//!                    | another's: left alone, and told            still removed
//!                    v
//!                   remove(), or dropped: removed, if the name still leads to our file
//! ```
//!
//! What always holds: a file is ours by its number, and not by its name. While it is ours it is held open, so that no
//! other file gets the number. A service whose socket was removed, and whose successor has bound the name, leaves the
//! successor's socket where it is; and it binds the name no more once a successor has the service's directories.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use nix::fcntl::OFlag;
use nix::unistd::chown;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::listen::ListenError;
use crate::config::Server;

/// How long a service that holds a socket may take to accept a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether the file is there: clients that found none try again after about as long.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Whether the service's directories are still its own; asked before the name is bound again.
pub(super) type OwnsPlaces = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ours,
    Nothing,
    Anothers,
}

/// The file of a Unix socket. It goes with this value.
pub(super) struct SocketFile {
    server: Server,
    owns_places: Option<OwnsPlaces>,
    /// The file, open only to be held; none once it was removed.
    bound: Mutex<Option<File>>,
}

impl SocketFile {
    /// Binds the socket that the configuration names.
    ///
    /// # Errors
    /// It cannot be bound, or somebody answers there already; nothing is left.
    pub(super) async fn bind(server: &Server) -> Result<(UnixListener, Self), ListenError> {
        remove_stale(&server.socket).await?;
        let (listener, file) = bind(server)?;
        let socket = Self {
            server: server.clone(),
            owns_places: None,
            bound: Mutex::new(Some(file)),
        };
        Ok((listener, socket))
    }

    /// The same, which asks this before it is bound again.
    pub(super) fn asking(mut self, owns_places: OwnsPlaces) -> Self {
        self.owns_places = Some(owns_places);
        self
    }

    pub(super) fn path(&self) -> &Path {
        &self.server.socket
    }

    /// Resolves with another listener once the file was removed by others and is bound again; never, once another service
    /// has the directories of this one. What is wrong meanwhile is told in the log, once.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn bound_again(&self) -> UnixListener {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        let path = self.path().display().to_string();
        loop {
            looks.tick().await;
            let problem = match self.found() {
                Found::Ours => continue,
                Found::Anothers => "another file has taken its place".to_owned(),
                Found::Nothing if !self.owns_places().await => {
                    "another service has this one's directory, and binds it".to_owned()
                }
                Found::Nothing => match self.bind_again() {
                    // The service is closing.
                    Ok(None) => continue,
                    Ok(Some(listener)) => {
                        warn!(path, "the socket was removed, and is bound again");
                        return listener;
                    }
                    Err(error) => error.to_string(),
                },
            };
            if told != problem {
                warn!(
                    path,
                    problem, "clients do not reach the service at its socket"
                );
                told = problem;
            }
        }
    }

    async fn owns_places(&self) -> bool {
        match &self.owns_places {
            Some(owns_places) => owns_places().await,
            None => true,
        }
    }

    /// Removes the file, if it is still ours.
    pub(super) fn remove(&self) {
        let is_ours = self.found() == Found::Ours;
        let was_bound = self.bound().take().is_some();
        if is_ours && was_bound {
            // Where it is gone already there is nothing to do, and a directory that is gone has none in it.
            let _ = fs::remove_file(self.path());
        }
    }

    fn found(&self) -> Found {
        let bound = self.bound();
        let ours = bound.as_ref().map(File::metadata);
        match (ours, fs::symlink_metadata(self.path())) {
            (_, Err(error)) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            (Some(Ok(ours)), Ok(there))
                if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) =>
            {
                Found::Ours
            }
            (_, Ok(_) | Err(_)) => Found::Anothers,
        }
    }

    /// Binds the name again; not once the file was removed by us.
    fn bind_again(&self) -> Result<Option<UnixListener>, ListenError> {
        let mut bound = self.bound();
        if bound.is_none() {
            return Ok(None);
        }
        let (listener, file) = bind(&self.server)?;
        *bound = Some(file);
        Ok(Some(listener))
    }

    fn bound(&self) -> MutexGuard<'_, Option<File>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Binds a name that is free, and sets the rights of the file. Where that fails no file is left.
fn bind(server: &Server) -> Result<(UnixListener, File), ListenError> {
    bind_and(server, settle)
}

type Settle = fn(&Server) -> Result<File, ListenError>;

fn bind_and(server: &Server, settle: Settle) -> Result<(UnixListener, File), ListenError> {
    let path = &server.socket;
    let listener = UnixListener::bind(path).map_err(failed("bind", path))?;
    match settle(server) {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            // Nobody else has bound it since: the name was taken by it. Left there, it would be taken for another's.
            if let Err(error) = fs::remove_file(path) {
                warn!(path = %path.display(), %error, "a socket that cannot be used is left");
            }
            Err(error)
        }
    }
}

/// Holds the file of a socket that was just bound, and sets its rights.
fn settle(server: &Server) -> Result<File, ListenError> {
    let path = &server.socket;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .map_err(failed("look at", path))?;
    if let Some(group) = server.socket_group {
        chown(path, None, Some(group))
            .map_err(|errno| failed("give its group to", path)(io::Error::from(errno)))?;
    }
    fs::set_permissions(path, Permissions::from_mode(server.socket_mode))
        .map_err(failed("set the rights of", path))?;
    Ok(file)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError + use<> {
    let path = path.to_owned();
    move |source| ListenError::Unix {
        action,
        path,
        source,
    }
}

/// Removes a socket on which nobody answers; anything else stays and is an error.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at", path)(source)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NoSocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old", path))
        }
        Ok(Err(source)) => Err(failed("look at", path)(source)),
        Ok(Ok(_)) | Err(_) => Err(ListenError::Taken {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
