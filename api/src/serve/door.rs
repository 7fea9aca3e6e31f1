//! Keeps the machines themselves out of the API.
//!
//! A network of QEMU's own (`{"user": true}`) lets its guest reach 127.0.0.1 of the host, where the service listens: a guest
//! could check out sandboxes and run commands in those of others. What it sends comes from QEMU's process, so the kernel
//! knows it by its user. One look into /proc/net/tcp for each new connection, not for each request; who cannot be found
//! there is not let in either.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use procfs::ProcError;
use procfs::net::TcpNetEntry;
use tokio::net::TcpStream;
use tracing::warn;

/// Who is let in.
pub(super) struct Door {
    /// The user of the machines, where it is one of its own.
    qemu_uid: Option<u32>,
    has_warned: AtomicBool,
}

impl Door {
    pub(super) fn new(qemu_uid: Option<u32>) -> Self {
        Self {
            qemu_uid,
            has_warned: AtomicBool::new(false),
        }
    }

    /// Whether whoever has made this connection is served.
    pub(super) fn lets_in(&self, stream: &TcpStream) -> bool {
        let Some(qemu_uid) = self.qemu_uid else {
            return true;
        };
        let uid = stream
            .peer_addr()
            .ok()
            .zip(stream.local_addr().ok())
            .and_then(|(peer, local)| uid_of(peer, local).ok().flatten());
        if uid.is_some_and(|uid| uid != qemu_uid) {
            return true;
        }
        if uid == Some(qemu_uid) && !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                uid = qemu_uid,
                "a machine, or another process of QEMU's user, has tried to reach the API over TCP: it is not let in"
            );
        }
        false
    }
}

/// Whose socket is at this end of a connection; none when the kernel does not list it. One that was closed by its owner has
/// no inode any more, and the kernel says user 0 of it, whoever that was: it is as good as not listed.
fn uid_of(end: SocketAddr, other: SocketAddr) -> Result<Option<u32>, ProcError> {
    let entries = match end {
        SocketAddr::V4(_) => procfs::net::tcp()?,
        SocketAddr::V6(_) => procfs::net::tcp6()?,
    };
    let is_it = |entry: &TcpNetEntry| {
        entry.local_address == end && entry.remote_address == other && entry.inode != 0
    };
    Ok(entries.into_iter().find(is_it).map(|entry| entry.uid))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_user_of_the_machines_is_not_let_in_and_others_are() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (served, _) = listener.accept().await?;
        let ours = nix::unistd::Uid::effective().as_raw();
        assert!(
            !Door::new(Some(ours)).lets_in(&served),
            "we are QEMU's user"
        );
        assert!(
            Door::new(Some(ours + 1)).lets_in(&served),
            "we are somebody else"
        );
        assert!(
            Door::new(None).lets_in(&served),
            "QEMU has no user of its own"
        );
        drop(client);
        Ok(())
    }

    #[tokio::test]
    async fn who_writes_and_closes_at_once_is_not_taken_for_root() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        client.writable().await?;
        client.try_write(b"POST /v1/drain HTTP/1.0\r\n\r\n")?;
        drop(client);
        let (served, _) = listener.accept().await?;
        let somebody = nix::unistd::Uid::effective().as_raw() + 1;
        assert!(!Door::new(Some(somebody)).lets_in(&served));
        Ok(())
    }
}
