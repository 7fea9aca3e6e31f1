//! Who is at the other end of a connection, and whether it is served at all.
//!
//! A network of QEMU's own (`{"user": true}`) lets its guest reach 127.0.0.1 of the host, where the service listens: a guest
//! could check out sandboxes and run commands in those of others. What it sends comes from QEMU's process, so the kernel
//! knows it by its user: users that hypervisors run as are not served. Which other user it is decides what it may do
//! ([`crate::http::Peer`]).
//!
//! A plain user's hypervisors run as that very user. On the Unix socket they are known by their process, and not served.
//! Over TCP no process is known: their domains let them open no connection, and while one from before, which may, still
//! lives, none of that user's connections is served.
//!
//! What always holds: one question for each connection, in that connection's own task; a TCP client whose user cannot be
//! found is gone, and is not served; where the kernel answers no such questions at all, a client gets 403 and the reason.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};
use vmint_cache::Caller;
use vmint_factory::Hypervisors;

use super::diag::{DiagError, SockDiag};
use crate::http::{Origin, Peer, Refused};

/// What a host without such a kernel can do.
pub(crate) const NO_DIAG_HINT: &str = "load the kernel's module tcp_diag (modprobe tcp_diag; CONFIG_INET_TCP_DIAG), and start the \
     service again; or use the Unix socket, and set server.listen = \"\"";

/// Why nothing over TCP is served on a kernel without `tcp_diag`.
const NO_DIAG: Refused = Refused(
    "the kernel does not say which user this connection comes from; hint: over TCP that needs its module tcp_diag (modprobe \
     tcp_diag, then start the service again); the Unix socket works without",
);
/// Why nothing over TCP is served while a hypervisor of the client's user may be the client.
const MAYBE_A_GUEST: Refused = Refused(
    "a sandbox of an earlier service, whose hypervisor has this user, may open TCP connections: this one could be its guest's; \
     hint: release it (the service's log names it), or use the Unix socket",
);

/// Who is served.
pub(super) struct Door {
    /// `None` where the kernel does not say who connects over TCP.
    diag: Option<SockDiag>,
    /// The users that hypervisors run as.
    hypervisors: Vec<u32>,
    has_warned: AtomicBool,
}

/// A client that is served.
pub(super) struct Client {
    pub(super) origin: Origin,
    /// Who asks, or why that is not known.
    pub(super) peer: Result<Peer, Refused>,
    /// Whose rights open devices.
    pub(super) caller: Option<Caller>,
}

impl Door {
    pub(super) fn new(diag: Option<SockDiag>, hypervisors: &[u32]) -> Self {
        Self {
            diag,
            hypervisors: hypervisors.to_vec(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// The client of a TCP connection; `None` when it is not served.
    pub(super) fn over_tcp(&self, stream: &TcpStream) -> Option<Client> {
        let client = |peer| Client {
            origin: Origin::Tcp,
            peer,
            caller: None,
        };
        let Some(diag) = &self.diag else {
            return Some(client(Err(NO_DIAG)));
        };
        let uid = user_at(diag, stream).unwrap_or_else(|error| {
            debug!(%error, "the kernel does not say whose connection this is: it is closed");
            None
        })?;
        if !self.lets_in(uid) {
            return None;
        }
        let is_known = !Hypervisors.connect_as(uid);
        let peer = is_known.then_some(Peer { uid, gid: None });
        Some(client(peer.ok_or(MAYBE_A_GUEST)))
    }

    /// The client of a connection to the Unix socket, whose mode and group have let it in; `None` when it is not served.
    pub(super) fn over_unix(&self, stream: &UnixStream) -> Option<Client> {
        let caller = match Caller::of_peer(stream) {
            Ok(caller) => caller,
            Err(error) => {
                debug!(%error, "the kernel does not say whose connection this is");
                return None;
            }
        };
        let peer = Peer {
            uid: caller.uid(),
            gid: Some(caller.gid()),
        };
        let is_served = self.lets_in(peer.uid) && !self.is_hypervisor(&caller);
        is_served.then_some(Client {
            origin: Origin::Unix,
            peer: Ok(peer),
            caller: Some(caller),
        })
    }

    /// Whether a client whose user has hypervisors is one of them, or began in one. A client that is gone already is not
    /// known to be none.
    fn is_hypervisor(&self, caller: &Caller) -> bool {
        let is_one = Hypervisors.run_as(caller.uid()) && Hypervisors.include(caller.pid());
        if is_one {
            self.warn_once(caller.uid());
        }
        is_one
    }

    fn lets_in(&self, uid: u32) -> bool {
        let is_hypervisor = self.hypervisors.contains(&uid);
        if is_hypervisor {
            self.warn_once(uid);
        }
        !is_hypervisor
    }

    fn warn_once(&self, uid: u32) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                uid,
                "a guest, or another process of a hypervisor's user, has tried to reach the API: it is not served"
            );
        }
    }
}

/// The user of a connection's other end.
fn user_at(diag: &SockDiag, stream: &TcpStream) -> Result<Option<u32>, DiagError> {
    let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else {
        return Ok(None);
    };
    let uid = diag.user_of(peer, own)?;
    // Our end still has its peer: so the addresses were this client's when the kernel was asked, and no other's who has
    // them since.
    Ok(uid.filter(|_| stream.peer_addr().is_ok()))
}

/// Whether the kernel says who connects to a listener at this address; the reason where it does not. It may block while
/// the kernel loads a module.
pub(crate) fn probe_diag(address: IpAddr) -> Result<(), DiagError> {
    let listener = std::net::TcpListener::bind((address, 0))?;
    SockDiag::open(listener.local_addr()?).map(drop)
}

/// Finds out whether the kernel says who connects to this listener; else says so in the log.
pub(super) async fn diag_for(listener: SocketAddr) -> Option<SockDiag> {
    let opened = spawn_blocking(move || SockDiag::open(listener)).await;
    let error = match opened {
        Ok(Ok(diag)) => return Some(diag),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    warn!(
        error,
        hint = NO_DIAG_HINT,
        "the kernel does not say who connects over TCP: every request over TCP is refused (403)"
    );
    None
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn ours() -> u32 {
        nix::unistd::Uid::effective().as_raw()
    }

    async fn door(listener: &TcpListener, hypervisors: &[u32]) -> std::io::Result<Door> {
        let diag = diag_for(listener.local_addr()?).await;
        assert!(diag.is_some(), "this kernel has tcp_diag");
        Ok(Door::new(diag, hypervisors))
    }

    fn uid(client: Option<Client>) -> Option<u32> {
        client?.peer.ok().map(|peer| peer.uid)
    }

    #[tokio::test]
    async fn users_of_hypervisors_are_not_served_and_others_are_known() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (served, _) = listener.accept().await?;
        let (ours, other) = (ours(), ours() + 1);
        for (hypervisors, expected) in [
            (vec![], Some(ours)),
            (vec![other], Some(ours)),
            (vec![ours], None),
            (vec![other, ours], None),
        ] {
            let door = door(&listener, &hypervisors).await?;
            assert_eq!(uid(door.over_tcp(&served)), expected, "{hypervisors:?}");
        }
        let (unix, other_end) = UnixStream::pair()?;
        assert_eq!(uid(Door::new(None, &[]).over_unix(&unix)), Some(ours));
        assert!(Door::new(None, &[ours]).over_unix(&unix).is_none());
        drop((client, other_end));
        Ok(())
    }

    #[tokio::test]
    async fn a_client_that_writes_and_closes_at_once_is_not_taken_for_root() -> std::io::Result<()>
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        client.writable().await?;
        client.try_write(b"POST /v1/drain HTTP/1.0\r\n\r\n")?;
        drop(client);
        let (served, _) = listener.accept().await?;
        assert!(door(&listener, &[]).await?.over_tcp(&served).is_none());
        Ok(())
    }

    #[tokio::test]
    async fn a_client_whose_connection_was_reset_is_not_taken_for_the_next_with_its_port()
    -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let door = door(&listener, &[]).await?;
        let client = TcpStream::connect(address).await?;
        let port = client.local_addr()?;
        let (reset, _) = listener.accept().await?;
        client.set_zero_linger()?;
        drop(client);
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(port)?;
        let next = socket.connect(address).await?;
        let (served, _) = listener.accept().await?;
        assert!(
            door.over_tcp(&reset).is_none(),
            "its addresses are another's now"
        );
        assert!(door.over_tcp(&served).is_some());
        drop(next);
        Ok(())
    }

    #[tokio::test]
    async fn a_kernel_that_does_not_answer_leaves_a_client_unknown() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (served, _) = listener.accept().await?;
        let entered = Door::new(None, &[]).over_tcp(&served);
        assert!(entered.is_some_and(|client| client.peer.is_err()));
        drop(client);
        Ok(())
    }
}
