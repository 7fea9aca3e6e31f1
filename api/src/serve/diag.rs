//! The user at the other end of a TCP connection of this host: one question to the kernel (`NETLINK_SOCK_DIAG`) for one
//! pair of addresses.
//!
//! The kernel finds the socket in its hash table, so the time does not depend on how many sockets there are, and the
//! answer is there when the question has been sent: nothing here waits. An IPv6 socket that speaks IPv4 (a dual-stack
//! client, such as every JVM) is found by its IPv4 addresses.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    DecodeError, ErrorBuffer, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, Parseable as _,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, TCP_CLOSE_WAIT, TCP_CLOSING,
    TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_LISTEN,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// Larger than the kernel's description of any one socket.
const ANSWER_MAX_BYTES: usize = 4096;
/// Answers to earlier questions that are skipped: there is one only after a question that failed half-way.
const STALE_ANSWERS_MAX: usize = 4;
/// "Any socket with these addresses", in place of a cookie.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Why the kernel did not say whose connection it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiagError {
    /// A system call.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The kernel finds not even our own listening socket.
    #[error("the kernel does not know its own listening socket: it has no inet_diag for TCP")]
    Missing,
    /// The answer is none that this program understands.
    #[error("the kernel's answer cannot be read: {0}")]
    Answer(#[from] DecodeError),
    /// Answers came, but not to this question.
    #[error("the kernel did not answer this question")]
    Silent,
}

/// A netlink socket that is used for one question after the other.
#[derive(Default)]
pub(crate) struct SockDiag(Mutex<Link>);

#[derive(Default)]
struct Link {
    /// Opened by the first question, and again after one that failed.
    socket: Option<OwnedFd>,
    sequence: u32,
}

impl SockDiag {
    /// Asks for a listening socket of our own: only an answer proves that this kernel answers at all, since "there is no
    /// such socket" and "there is no such module" are the same error. It may block while the kernel loads the module.
    ///
    /// # Errors
    /// The kernel does not answer such questions.
    pub(crate) fn open(listener: SocketAddr) -> Result<Self, DiagError> {
        let diag = Self::default();
        let nobody = SocketAddr::new(listener.ip(), 0);
        match diag.ask(listener, nobody)? {
            Some(socket) if socket.state == TCP_LISTEN => Ok(diag),
            Some(_) | None => Err(DiagError::Missing),
        }
    }

    /// The user whose socket has the address `end` and is connected to `other`. `None` when there is no such socket, or
    /// none that a process still has open: the kernel says user 0 of an orphan, whoever that was.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub(super) fn user_of(
        &self,
        end: SocketAddr,
        other: SocketAddr,
    ) -> Result<Option<u32>, DiagError> {
        let (end, other) = (canonical(end), canonical(other));
        let socket = self.ask(end, other)?;
        // Without a connected socket the kernel offers one that listens on the same port.
        let socket = socket.filter(|socket| {
            has_been_connected(socket.state)
                && socket.inode != 0
                && address(&socket.socket_id, Side::Local) == end
                && address(&socket.socket_id, Side::Remote) == other
        });
        Ok(socket.map(|socket| socket.uid))
    }

    fn ask(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<InetResponseHeader>, DiagError> {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = link.ask(canonical(local), canonical(remote));
        if answer.is_err() {
            link.socket = None;
        }
        answer
    }
}

impl Link {
    fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<InetResponseHeader>, DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(open()?),
        };
        let question = question(local, remote, self.sequence);
        send(&*socket, &question, SendFlags::empty()).map_err(io::Error::from)?;
        let mut answer = [0; ANSWER_MAX_BYTES];
        for _ in 0..=STALE_ANSWERS_MAX {
            let (length, _) =
                recv(&*socket, &mut answer[..], RecvFlags::empty()).map_err(io::Error::from)?;
            let message = NetlinkBuffer::new_checked(&answer[..length])?;
            if message.sequence_number() == self.sequence {
                return read(&message);
            }
        }
        Err(DiagError::Silent)
    }
}

/// A socket that speaks with the kernel alone, and never waits.
fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        flags,
        Some(SOCK_DIAG),
    )?;
    const KERNEL: u32 = 0;
    connect(&socket, &SocketAddrNetlink::new(KERNEL, 0))?;
    Ok(socket)
}

fn question(local: SocketAddr, remote: SocketAddr, sequence: u32) -> Vec<u8> {
    let request = InetRequest {
        family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: 0,
            cookie: NO_COOKIE,
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The socket, or `None` where there is none. The attributes behind the header are not looked at: kernels add new ones.
fn read(message: &NetlinkBuffer<&[u8]>) -> Result<Option<InetResponseHeader>, DiagError> {
    match message.message_type() {
        SOCK_DIAG_BY_FAMILY => Ok(Some(InetResponseHeader::parse(message.payload())?)),
        NLMSG_ERROR => {
            let code = ErrorBuffer::new_checked(message.payload())?.code();
            let error = io::Error::from_raw_os_error(code.map_or(0, |code| code.get().abs()));
            if error.kind() == io::ErrorKind::NotFound {
                return Ok(None);
            }
            Err(error.into())
        }
        _ => Err(DiagError::Silent),
    }
}

/// IPv4 as IPv4, however the socket names it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[derive(Clone, Copy)]
enum Side {
    Local,
    Remote,
}

fn address(id: &SocketId, side: Side) -> SocketAddr {
    canonical(match side {
        Side::Local => SocketAddr::new(id.source_address, id.source_port),
        Side::Remote => SocketAddr::new(id.destination_address, id.destination_port),
    })
}

/// Whether a socket has completed its handshake and was not reset: one that only tries to connect may have taken over
/// the addresses of another.
fn has_been_connected(state: u8) -> bool {
    matches!(
        state,
        TCP_ESTABLISHED
            | TCP_FIN_WAIT1
            | TCP_FIN_WAIT2
            | TCP_CLOSE_WAIT
            | TCP_LAST_ACK
            | TCP_CLOSING
    )
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    fn ours() -> u32 {
        nix::unistd::Uid::effective().as_raw()
    }

    /// A connection of a client at `from` to a service at `to`: both ends, and whose the client's end is.
    fn connected(listen: IpAddr, to: IpAddr) -> (TcpStream, TcpStream, Option<u32>) {
        let listener = TcpListener::bind((listen, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let diag = SockDiag::open(address).expect("the kernel answers");
        let client = TcpStream::connect((to, address.port())).expect("a connection");
        let (served, peer) = listener.accept().expect("accepted");
        let user = diag.user_of(peer, served.local_addr().expect("an address"));
        (client, served, user.expect("an answer"))
    }

    #[test]
    fn the_user_of_a_connection_is_found_over_ipv4_ipv6_and_from_dual_stack_sockets() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        // The client has an IPv6 socket, and stands in another table than the service.
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        for (listen, to) in [
            (v4, v4),
            (v6, v6),
            (v4, mapped),
            (mapped, v4),
            (mapped, mapped),
        ] {
            let (_client, _served, user) = connected(listen, to);
            assert_eq!(user, Some(ours()), "{to} to {listen}");
        }
    }

    #[test]
    fn a_socket_that_nobody_has_open_is_nobodys() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (client, served, _) = connected(v4, v4);
        let diag = SockDiag::default();
        let (peer, own) = (
            served.peer_addr().expect("a peer"),
            served.local_addr().expect("own"),
        );
        drop(client);
        assert_eq!(
            diag.user_of(peer, own).expect("an answer"),
            None,
            "half closed"
        );
        drop(served);
        assert_eq!(diag.user_of(peer, own).expect("an answer"), None, "closed");
    }

    #[test]
    fn a_listener_on_the_port_of_a_client_that_is_gone_is_not_taken_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let (address, nobody) = (listener.local_addr().expect("own"), "127.0.0.1:9");
        let diag = SockDiag::open(address).expect("the kernel answers");
        let nobody = nobody.parse().expect("an address");
        assert!(
            diag.ask(address, nobody).expect("an answer").is_some(),
            "the kernel offers it"
        );
        assert_eq!(diag.user_of(address, nobody).expect("an answer"), None);
    }

    #[test]
    fn a_failed_question_leaves_none_of_its_answer_to_the_next() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (_client, served, _) = connected(v4, v4);
        let (peer, own) = (
            served.peer_addr().expect("a peer"),
            served.local_addr().expect("own"),
        );
        let diag = SockDiag::default();
        let no_one = SocketAddr::new(v4, 9);
        assert_eq!(diag.user_of(no_one, own).expect("an answer"), None);
        {
            // A question whose answer was never taken.
            let mut link = diag.0.lock().expect("not poisoned");
            link.sequence += 1;
            let (stale, sequence) = (question(no_one, own, link.sequence), link.sequence);
            let socket = link.socket.as_ref().expect("it is open");
            send(socket, &stale, SendFlags::empty()).expect("sent");
            assert_eq!(link.sequence, sequence);
        }
        assert_eq!(diag.user_of(peer, own).expect("an answer"), Some(ours()));
    }
}
