//! The listeners at work: a task for each, and one for each connection.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use vmint_cache::Caller;

use super::connection::serve_connection;
use super::door::Door;
use super::files::connections_max;
use super::listen::{Listeners, SocketFile};
use crate::http::limits::CONNECTIONS_MAX;
use crate::http::{Origin, Peer, Seat};

/// How long to wait when a connection cannot be accepted: files are short, and one must be closed first.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// All connections together, once the service closes; each has a shorter limit of its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Running listeners.
pub struct Server {
    close: CancellationToken,
    tasks: TaskTracker,
    socket: Option<SocketFile>,
}

impl Server {
    /// Serves the router on every listener. `files` is the limit of open files; `qemu_uid` the user of the machines, who
    /// is not served over TCP.
    #[must_use]
    pub fn start(listeners: Listeners, router: &Router, files: u64, qemu_uid: Option<u32>) -> Self {
        let Listeners { tcp, unix, socket } = listeners;
        let server = Self {
            close: CancellationToken::new(),
            tasks: TaskTracker::new(),
            socket: Some(socket),
        };
        let connections = connections_max(files, CONNECTIONS_MAX);
        if let Some(tcp) = tcp {
            server
                .tasks
                .spawn(server.acceptor(router, connections, qemu_uid).run(tcp));
        }
        server
            .tasks
            .spawn(server.acceptor(router, connections, qemu_uid).run(unix));
        server
    }

    fn acceptor(&self, router: &Router, connections: usize, qemu_uid: Option<u32>) -> Acceptor {
        Acceptor {
            door: Door::new(qemu_uid),
            router: router.clone(),
            room: Arc::new(Semaphore::new(connections)),
            close: self.close.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Closes the listeners, lets the last answers out, and removes the socket.
    ///
    /// # Cancel safety
    /// Dropped, the rest is dropped with it: nothing is left.
    pub async fn close(mut self) {
        self.close.cancel();
        self.tasks.close();
        drop(self.socket.take());
        if timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            warn!("some connections did not close");
        }
    }
}

impl Drop for Server {
    /// A server that is dropped without [`Server::close`] leaves no task behind.
    fn drop(&mut self) {
        self.close.cancel();
    }
}

/// Accepts the connections of one listener.
struct Acceptor {
    door: Door,
    router: Router,
    room: Arc<Semaphore>,
    close: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run<L: Listener>(self, listener: L) {
        let close = self.close.clone();
        let _ = close.run_until_cancelled(self.accept_all(listener)).await;
    }

    /// Connections that do not fit wait in the kernel's queue.
    async fn accept_all<L: Listener>(self, listener: L) {
        loop {
            let Ok(room) = self.room.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) if !L::may_enter(&stream, &self.door) => drop(stream),
                Ok((stream, peer)) => {
                    let served = serve_connection(
                        stream,
                        self.router.clone(),
                        (L::ORIGIN, peer),
                        Seat::new(room),
                        self.close.clone(),
                    );
                    self.tasks.spawn(served);
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Who is at the other end of a Unix socket: whom its sandboxes' sockets belong to, and whose rights open devices.
type Known = (Peer, Caller);

/// What TCP and Unix sockets have in common.
trait Listener: Send + Sync + 'static {
    const ORIGIN: Origin;
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection, and who is at its other end, where that is known.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Known>)>> + Send;
    /// Whether whoever has connected is served at all.
    fn may_enter(stream: &Self::Stream, door: &Door) -> bool;
}

impl Listener for TcpListener {
    const ORIGIN: Origin = Origin::Tcp;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<Known>)> {
        let (stream, _) = Self::accept(self).await?;
        // An answer is one small write: it must not wait for more.
        stream.set_nodelay(true)?;
        Ok((stream, None))
    }

    fn may_enter(stream: &TcpStream, door: &Door) -> bool {
        door.lets_in(stream)
    }
}

impl Listener for UnixListener {
    const ORIGIN: Origin = Origin::Unix;
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Known>)> {
        let (stream, _) = Self::accept(self).await?;
        // Who connected and was gone at once may be unknown: no reason to serve no one else.
        let peer = Caller::of_peer(&stream).ok().map(|caller| {
            let (uid, gid) = (caller.uid(), caller.gid());
            (Peer { uid, gid }, caller)
        });
        Ok((stream, peer))
    }

    /// The socket's mode has decided.
    fn may_enter(_: &UnixStream, _: &Door) -> bool {
        true
    }
}
